"""A path of this side as the broker has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route.translate import translate
from mempalace_broker.shim.dialer import Dialer
from mempalace_broker.system.paths import Context
from mempalace_broker.system.private import VARIABLE


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "config.toml").write_text('[container.paths]\n"/" = "/outside"\n')
    return Context(PalaceIdentity("/p/palace", "/p/graph", "flag"), {VARIABLE: str(tmp_path)})


def test_a_name_that_no_file_can_have_has_no_name_there(context: Context) -> None:
    """An agent can be talked into any name; it costs that call and no more."""
    assert translate(context, "/nowhere/x", {}) == "/outside/nowhere/x"
    assert translate(context, "/nowhere/\ud800", {}) is None


def test_only_what_has_a_name_there_is_proven(context: Context, tmp_path: Path) -> None:
    dialer = Dialer({}, "test")
    dialer.context = context
    names = dialer.translate_paths([str(tmp_path), "/\ud800"], {"proof": "abc"})
    assert names == {str(tmp_path): f"/outside{tmp_path}", "/\ud800": None}
    assert (tmp_path / ".mempalace-proof-abc").exists()
