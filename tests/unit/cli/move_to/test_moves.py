"""Which entries of a palace's folder a move renames: those of its store, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.cli.move_to import move
from mempalace_broker.cli.move_to.move import _moves
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system.paths import Context
from mempalace_broker.system.pending_restore import finish_restore
from mempalace_broker.system.private import VARIABLE

INDEX = "11111111-2222-3333-4444-555555555555"


def test_the_old_store_goes_and_the_new_one_comes(tmp_path: Path) -> None:
    palace, staging, aside = tmp_path / "palace", tmp_path / "staging", tmp_path / "aside"
    for folder in (palace, staging, palace / INDEX, palace / "broker-claims"):
        folder.mkdir()
    stays = ["broker.lock", "engine.lock", "knowledge_graph.sqlite3", "logstream.sqlite3", "notes.txt"]
    for name in ["chroma.sqlite3", "chroma.sqlite3-wal", "mempalace_embedder.json", *stays]:
        (palace / name).touch()
    for name in ("pgvector_backend.json", "mempalace_embedder.json", "note.tmp"):
        (staging / name).touch()
    found = {Path(move.live).name: bool(move.new) for move in _moves(str(palace), str(staging), str(aside))}
    assert found == {
        "chroma.sqlite3": False,
        "chroma.sqlite3-wal": False,
        INDEX: False,
        "mempalace_embedder.json": True,
        "pgvector_backend.json": True,
    }


class Killed(BaseException):
    """As kill -9: nothing after it runs."""


@pytest.mark.parametrize("before", ["write_moves", "finish_restore"])
def test_a_move_that_is_killed_at_its_end_goes_on_and_leaves_no_note(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the note what we put into the new store would be another's, and the next move would refuse it."""
    private, palace = tmp_path / "private", tmp_path / "palace"
    private.mkdir(mode=0o700)
    palace.mkdir()
    (palace / "chroma.sqlite3").write_text("old")
    context = Context(PalaceIdentity(str(palace), "", "flag"), {VARIABLE: str(private)})
    note = Path(context.files.private.file("moving.json").path)

    def copied(*_: object, **__: object) -> int:
        note.write_text(json.dumps({"target": "sqlite_exact"}))
        (tmp_path / "palace.moving-to-sqlite_exact" / "sqlite_exact.sqlite3").write_text("new")
        return 0

    def killed(*_: object) -> None:
        raise Killed

    def moved() -> None:
        loan: Any = SimpleNamespace()
        move._move(context, "python", ("mempalace-broker", "move-to", "sqlite_exact"), loan, replace=False)

    assert context.files.private.make() == ""
    monkeypatch.setattr(move, "run_command", copied)
    with monkeypatch.context() as dying:
        dying.setattr(move, before, killed)
        with pytest.raises(Killed):
            moved()
    assert note.exists()
    if before == "write_moves":
        moved()
    else:
        finish_restore(context.files.restore)
    assert (palace / "sqlite_exact.sqlite3").read_text() == "new"
    assert not note.exists()
