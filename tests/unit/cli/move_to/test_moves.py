"""Which entries of a palace's folder a move renames: those of its store, and nothing else."""

from __future__ import annotations

import json
import os
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


class World:
    """A palace in files, and what a move of it to sqlite_exact calls."""

    def __init__(self, folder: Path) -> None:
        private, self.palace = folder / "private", folder / "palace"
        private.mkdir(mode=0o700)
        self.palace.mkdir()
        (self.palace / "chroma.sqlite3").write_text("old")
        self.context = Context(PalaceIdentity(str(self.palace), "", "flag"), {VARIABLE: str(private)})
        assert self.context.files.private.make() == ""
        self.note = Path(self.context.files.private.file("moving.json").path)
        self.staging = Path(self.context.files.private.path) / "moving-to-sqlite_exact"
        self.beside = folder / "palace.moving-to-sqlite_exact"

    def copied(self, _: object, argv: list[str], *__: object, **___: object) -> int:
        """Do what the engine's interpreter does, with the folder that it is given."""
        self.note.write_text(json.dumps({"target": "sqlite_exact"}))
        Path(argv[argv.index("--staging") + 1], "sqlite_exact.sqlite3").write_text("new")
        return 0

    def move(self) -> str | None:
        loan: Any = SimpleNamespace()
        return move._move(self.context, "python", ("mempalace-broker", "move-to", "sqlite_exact"), loan, replace=False)

    def is_moved(self) -> bool:
        left = [self.note, self.staging, self.beside]
        return (self.palace / "sqlite_exact.sqlite3").read_text() == "new" and not any(map(os.path.lexists, left))


@pytest.mark.parametrize("before", ["write_moves", "finish_restore"])
def test_a_move_that_is_killed_at_its_end_goes_on_and_leaves_no_note(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the note what we put into the new store would be another's, and the next move would refuse it."""
    world = World(tmp_path)

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(move, "run_command", world.copied)
    with monkeypatch.context() as dying:
        dying.setattr(move, before, killed)
        with pytest.raises(Killed):
            world.move()
    assert world.note.exists()
    assert (world.staging / "sqlite_exact.sqlite3").read_text() == "new"
    if before == "write_moves":
        world.move()
    else:
        finish_restore(world.context.files.restore)
    assert world.is_moved()


def test_a_guest_finds_no_folder_to_swap_for_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, home = World(tmp_path), tmp_path / "home"
    home.mkdir()

    def swapped(*words: Any, **more: Any) -> int:
        if world.beside.is_dir():
            world.beside.rename(tmp_path / "away")
        world.beside.symlink_to(home)
        return world.copied(*words, **more)

    monkeypatch.setattr(move, "run_command", swapped)
    assert world.move() is not None
    assert list(home.iterdir()) == []
    assert (world.palace / "sqlite_exact.sqlite3").read_text() == "new"


def test_a_move_goes_on_after_an_earlier_version_that_made_its_folder_beside_the_palace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.beside.mkdir()
    (world.beside / "sqlite_exact.sqlite3").write_text("half of it")
    world.note.write_text(json.dumps({"target": "sqlite_exact"}))
    given = []

    def copied(context: object, argv: list[str], *words: object, **more: object) -> int:
        given.extend(argv)
        assert not list(world.staging.iterdir()), "nothing that a guest may have written to"
        return world.copied(context, argv, *words, **more)

    monkeypatch.setattr(move, "run_command", copied)
    assert world.move() is not None
    assert "--replace" in given, "the rows in a database are ours"
    assert world.is_moved()
