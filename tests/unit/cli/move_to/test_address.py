"""The address of the database: from the settings, else from the variable, and kept in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.cli.move_to.address import DSN, keep_address
from mempalace_broker.errors import UsageError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.settings_files import PrivateSettings
from mempalace_broker.system.paths import Context
from mempalace_broker.system.private import VARIABLE

URL = "postgresql://me:secret@db/palace"


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "private").mkdir(mode=0o700)
    identity = PalaceIdentity(str(tmp_path / "palace"), str(tmp_path / "graph"), "config")
    return Context(identity, {VARIABLE: str(tmp_path / "private"), "HOME": str(tmp_path)})


def kept(context: Context) -> str:
    return PrivateSettings.read(context.env).broker({}, context.identity.path).env.get(DSN, "")


def test_the_address_of_the_variable_is_kept_for_this_palace(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "private" / "config.toml"
    file.write_text('# mine\n[broker]\nidle_s = 7\n[palaces."/other"]\nenv = { A = "b" }\n')
    file.chmod(0o600)
    monkeypatch.setenv(DSN, URL)
    keep_address(context)
    assert kept(context) == URL
    assert PrivateSettings.read(context.env).broker({}, "/other").env == {"A": "b"}
    assert file.read_text().startswith("# mine\n[broker]\nidle_s = 7\n")
    assert file.stat().st_mode & 0o077 == 0
    monkeypatch.setenv(DSN, "postgresql://other")
    keep_address(context)
    assert kept(context) == URL  # what stands there counts


def test_a_config_toml_that_is_a_link_stays_one(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dotfiles").mkdir(mode=0o700)
    target = tmp_path / "dotfiles" / "mempalace.toml"
    target.write_text("# mine\n")
    link = tmp_path / "private" / "config.toml"
    link.symlink_to(target)
    monkeypatch.setenv(DSN, URL)
    keep_address(context)
    assert link.is_symlink()
    assert target.read_text().startswith("# mine\n")
    assert target.stat().st_mode & 0o077 == 0
    assert kept(context) == URL


def test_an_inline_table_of_the_palace_gets_it_too(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    palace = context.identity.path
    (tmp_path / "private" / "config.toml").write_text(f'[palaces."{palace}"]\nidle_s = 0\nenv = {{ A = "b" }}\n')
    monkeypatch.setenv(DSN, URL)
    keep_address(context)
    assert PrivateSettings.read(context.env).broker({}, palace).env == {"A": "b", DSN: URL}


@pytest.mark.parametrize("value", ["", "host=db password=secret", "db:5432"])
def test_no_address_or_one_of_another_form_is_refused(
    context: Context, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(DSN, value)
    with pytest.raises(UsageError) as refused:
        keep_address(context)
    assert "secret" not in refused.value.message + refused.value.hint
    assert kept(context) == ""
