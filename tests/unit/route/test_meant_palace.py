"""The palace that a client means: with a home, and with the version of its own engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mempalace_broker.errors import PalaceError, UsageError
from mempalace_broker.route.discover import meant_palace


def installed(folder: Path, version: str) -> str:
    """An environment that holds the metadata of that mempalace; its interpreter."""
    made = folder / f"engine-{version}"
    package = made / f"lib/python3.11/site-packages/mempalace-{version}.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").touch()
    (made / "pyvenv.cfg").touch()
    (made / "bin").mkdir()
    (made / "bin/python").symlink_to(sys.executable)
    return str(made / "bin/python")


@pytest.mark.parametrize(("version", "folder"), [("3.4.0", ".mempalace"), ("3.11.0", ".config/mempalace")])
def test_on_a_new_machine_the_version_that_would_run_decides(tmp_path: Path, version: str, folder: str) -> None:
    home = Path(os.path.realpath(tmp_path))
    private = home / "private"
    private.mkdir(mode=0o700)
    env = {"HOME": str(home), "MEMPALACE_BROKER_PRIVATE": str(private)}
    engine = installed(home, version)
    expected = str(home / folder / "palace")
    assert meant_palace({**env, "MEMPALACE_BROKER_ENGINE": engine}).path == expected
    (private / "config.toml").write_text(f'[palaces."{expected}"]\nengine = "{engine}"\n', encoding="utf-8")
    assert meant_palace({**env, "PATH": ""}).path == expected or version == "3.4.0", "in the settings of that palace"
    (private / "config.toml").write_text(f'[broker]\nengine = "{engine}"\n', encoding="utf-8")
    assert meant_palace(env).path == expected
    (private / "config.toml").write_text("[broker]\nengine = 7\n", encoding="utf-8")
    with pytest.raises(UsageError, match="engine"):
        meant_palace(env)
    assert meant_palace(env, "/p").path == "/p", "whoever names it needs no version"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a user without HOME who is not in the password file, as `docker run -u 12345` makes one."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    return {}


def test_without_a_home_it_is_refused(nobody: dict[str, str]) -> None:
    """As by mempalace, whatever else is named; no folder named "~" is made in the agent's working directory."""
    for flag, env in ((None, {}), ("/p", {}), (None, {"MEMPALACE_PALACE_PATH": "/p"}), (None, {"HOME": "~"})):
        with pytest.raises(PalaceError, match="no home directory") as refused:
            meant_palace({**nobody, **env}, flag)
        assert "set HOME" in refused.value.hint


def test_a_broker_that_is_named_may_run_for_somebody_with_a_home(nobody: dict[str, str]) -> None:
    env = {**nobody, "MEMPALACE_BROKER": "tcp://host:7"}
    assert meant_palace(env, "/p").path == "/p"
    with pytest.raises(PalaceError, match="no home directory"):
        meant_palace(env)
