"""Which entries of a palace's folder a move renames: those of its store, and nothing else."""

from __future__ import annotations

from pathlib import Path

from mempalace_broker.cli.move_to.move import _moves

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
