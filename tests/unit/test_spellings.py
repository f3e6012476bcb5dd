"""One palace under many spellings, as on a Mac: what of ours goes by a path goes by the one that the folder has."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.broker.machine.judge_hello import judge_hello
from mempalace_broker.doctor.open_files import find_open_files
from mempalace_broker.engine.parking import palace_files
from mempalace_broker.protocol.hello import WIRE_VERSION
from mempalace_broker.protocol.palace import FileView
from mempalace_broker.system import darwin, kernel
from mempalace_broker.system.find_palace import resolve_palace
from mempalace_broker.system.paths import state_files


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which PALACE is another spelling of palace."""
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(darwin, "true_path", lambda path: path.replace("PALACE", "palace"))
    monkeypatch.setattr(darwin, "path_of", lambda fd: os.readlink(f"/proc/self/fd/{fd}"))
    made = tmp_path.resolve()
    (made / "palace").mkdir()
    return made


def test_they_lead_to_the_same_files_of_ours(home: Path) -> None:
    one, other = (resolve_palace(str(home / name), {}, str(home)) for name in ("palace", "PALACE"))
    assert (
        (one.path, one.graph)
        == (other.path, other.graph)
        == (f"{home}/palace", f"{home}/palace/knowledge_graph.sqlite3")
    )
    assert other.name == f"{home}/PALACE", "mempalace gets the name that the user gave"
    files = state_files(one, {}), state_files(other, {})
    assert files[0].socket == files[1].socket
    assert files[0].log == files[1].log


def test_a_spelling_that_a_broker_does_not_know_is_served_all_the_same(home: Path) -> None:
    """A client of an earlier version, or one that can't tell the true spelling."""
    own = resolve_palace(str(home / "palace"), {}, str(home))
    theirs = {**own.as_json(), "path": f"{home}/PALACE", "graph": f"{home}/PALACE/knowledge_graph.sqlite3"}
    view = FileView(dev=1, ino=2, graph="1:2", beside="1:1")
    params: dict[str, Any] = {"wire": WIRE_VERSION, "palace": theirs, "view": view.as_json()}
    verdict = judge_hello(params, own, view)
    assert (verdict.code, verdict.graph_refused) == (0, "")
    assert judge_hello({**params, "view": FileView(dev=1, ino=3).as_json()}, own, view).code


@pytest.mark.skipif(not kernel.LINUX, reason="looks at /proc for the stand-in")
def test_open_files_are_found_under_every_spelling(home: Path) -> None:
    database = home / "palace" / "chroma.sqlite3"
    mempalace = SimpleNamespace(palace_path=lambda: str(home / "PALACE"), graph_path=lambda: None)
    with database.open("wb"):
        assert palace_files(cast(Any, mempalace)) == [str(database)]
        (found,) = find_open_files(str(home / "PALACE"))
        assert (found.pid, found.files) == (os.getpid(), (str(database),))
    assert palace_files(cast(Any, mempalace)) == []
