"""A mine embeds the texts of a file before it begins with it, and other calls run in between; else nothing differs."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups.mine_parts import MINE_PARTS
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.mempalace import FakeMempalace


class Collection:
    """Keeps rows, and says so in `seen`."""

    def __init__(self, seen: list[str], name: str) -> None:
        self.seen, self.name, self.closed = seen, name, False

    def get(self, **query: Any) -> Any:
        self.seen.append(f"{self.name}: get {query['where']}")
        return {"ids": [], "metadatas": []}

    def delete(self, **_which: Any) -> None:
        self.seen.append(f"{self.name}: delete")

    def upsert(self, *, documents: list[str], ids: list[str]) -> None:
        assert len(documents) == len(ids)
        assert not self.closed
        self.seen.append(f"{self.name}: store {documents}")


def process_file(
    filepath: str,
    project_path: str,
    collection: Any,
    wing: str,
    rooms: list[str],
    agent: str,
    dry_run: bool,
    closets_col: Any = None,
    max_chunks_per_file: int | None = None,
) -> int:
    """As mempalace's, in short; a file is its name, a chunk a word."""
    chunks = filepath.split()
    if dry_run or 0 < (max_chunks_per_file or 0) < len(chunks):
        return 0
    if collection.get(where=filepath)["ids"] or collection.get(where=filepath)["ids"]:
        return 0
    collection.delete(where=filepath)
    collection.upsert(documents=chunks, ids=chunks)
    closets_col.delete(where=filepath)
    closets_col.upsert(documents=[filepath.upper()], ids=["closet"])
    return len(chunks)


def file_chunks(
    collection: Any, source_file: str, chunks: list[dict[str, str]], wing: str, room: str, agent: str, more: int = 0
) -> int:
    texts = [chunk["content"] for chunk in chunks]
    collection.delete(where=source_file)
    collection.upsert(documents=texts, ids=texts)
    return more


class Mine:
    """A mempalace with the tune-up; `seen` is what happened, in order."""

    def __init__(self, path: Path, **other: Any) -> None:
        self.seen: list[str] = []
        self.kept: list[int] = []
        self.others_run = False
        self.opened = Collection(self.seen, "drawers"), Collection(self.seen, "closets")
        self.miner = SimpleNamespace(process_file=process_file)
        self.convos, self.formats = (SimpleNamespace(_file_chunks_locked=file_chunks) for _ in range(2))
        self.palace = SimpleNamespace(
            mine_yield_hook=lambda fn: fn,
            get_collection=lambda path: self.opened[0],
            get_closets_collection=lambda path: self.opened[1],
        )
        modules = {"palace": self.palace, "miner": self.miner, "convo_miner": self.convos}
        self.mempalace = FakeMempalace(path, **{**modules, "format_miner": self.formats, **other})
        self.mempalace.prefetch_embedding = lambda text: self.seen.append(f"embed {text}")
        self.mempalace.keep_embeddings = self.kept.append
        self.mempalace.between_texts = self.boundary

    def boundary(self) -> bool:
        self.seen.append("boundary")
        return self.others_run

    def apply(self) -> Mine:
        MINE_PARTS.apply(self.mempalace)  # type: ignore[arg-type]
        return self

    def file(self, name: str, *, dry_run: bool = False, most: int = 0) -> Any:
        """File it as mempalace's mine does, which holds its collections for long."""
        held = self.opened
        options = {"dry_run": dry_run, "closets_col": held[1], "max_chunks_per_file": most}
        return self.miner.process_file(name, "/p", held[0], wing="w", rooms=[], agent="a", **options)


STORED = [
    *("drawers: get heron fish", "drawers: get heron fish", "drawers: delete", "drawers: store ['heron', 'fish']"),
    *("closets: delete", "closets: store ['HERON FISH']"),
]


def test_a_files_texts_are_embedded_before_it_is_touched_with_a_boundary_after_each(tmp_path: Path) -> None:
    mine = Mine(tmp_path).apply()
    assert mine.file("heron fish") == 2
    asked = ["drawers: get heron fish"]  # once, for both questions of the rehearsal
    parts = [step for text in ("heron", "fish", "HERON FISH") for step in (f"embed {text}", "boundary")]
    assert mine.seen == [*asked, *parts, *STORED]
    assert mine.kept == [3, 0]
    assert mine.mempalace.calls_at_boundary < 8


def test_chunks_that_are_handed_over_are_embedded_first_as_well(tmp_path: Path) -> None:
    mine = Mine(tmp_path).apply()
    for module in (mine.convos, mine.formats):
        mine.seen.clear()
        assert module._file_chunks_locked(mine.opened[0], "f", [{"content": "heron"}], "w", "r", "a", more=7) == 7
        assert mine.seen == ["embed heron", "boundary", "drawers: delete", "drawers: store ['heron']"]


@pytest.mark.parametrize("how", [{"dry_run": True}, {"most": 1}])
def test_nothing_is_embedded_for_a_file_that_is_not_filed(tmp_path: Path, how: dict[str, Any]) -> None:
    mine = Mine(tmp_path).apply()
    assert mine.file("heron fish", **how) == 0
    assert not [step for step in mine.seen if not step.startswith("drawers: get")]


def test_a_file_that_is_known_is_not_rehearsed_further(tmp_path: Path) -> None:
    mine = Mine(tmp_path).apply()
    known = {"ids": ["heron"], "metadatas": [{}]}
    mine.opened[0].get = lambda **query: known  # type: ignore[method-assign]
    assert mine.file("heron fish") == 0
    assert mine.seen == []


def test_what_another_call_closed_is_opened_again_for_all_that_hold_it(tmp_path: Path) -> None:
    mine = Mine(tmp_path).apply()
    old, mine.others_run = mine.opened, True
    held = mine.opened

    def close() -> bool:
        for collection in held:
            collection.closed = True
        mine.opened = Collection(mine.seen, "drawers"), Collection(mine.seen, "closets")
        return True

    mine.mempalace.between_texts = close
    options = {"dry_run": False, "closets_col": old[1]}
    assert mine.miner.process_file("heron fish", "/p", old[0], wing="w", rooms=[], agent="a", **options) == 2
    assert not old[0].closed
    assert not old[1].closed


def test_the_rehearsal_of_a_file_with_too_many_texts_stops_at_once(tmp_path: Path) -> None:
    mine, written = Mine(tmp_path), []

    @functools.wraps(process_file)
    def in_batches(
        filepath: str, project_path: str, collection: Any, *_: Any, max_chunks_per_file: int = 0, **_rest: Any
    ) -> int:
        for chunk in filepath.split() if not max_chunks_per_file else ():
            written.append(chunk)
            collection.upsert(documents=[chunk], ids=[chunk])
        return 0

    mine.miner.process_file = in_batches
    mine.apply().file("heron fish river mill", most=2)
    assert written == ["heron", "fish", "river"]
    assert mine.seen == []


def test_entities_are_looked_for_only_when_the_file_is_filed(tmp_path: Path) -> None:
    mine, looked = Mine(tmp_path), []

    @functools.wraps(process_file)
    def with_entities(*args: Any, **options: Any) -> int:
        assert isinstance(mine.miner._extract_entities_for_metadata("heron"), str)
        return process_file(*args, **options)

    def look(content: str) -> str:
        looked.append(list(mine.seen))
        return content

    mine.miner.process_file, mine.miner._extract_entities_for_metadata = with_entities, look
    assert mine.apply().file("heron fish") == 2
    assert [seen[-1] for seen in looked] == ["boundary"]
    assert mine.miner._extract_entities_for_metadata is look


def test_an_error_while_embedding_is_left_to_mempalace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine = Mine(tmp_path)

    def fail(_: str) -> None:
        raise ValueError("no model")

    mine.mempalace.prefetch_embedding = fail
    assert mine.apply().file("heron fish") == 2
    assert mine.seen == ["drawers: get heron fish", *STORED]
    assert mine.kept == [3, 0]
    assert "no model" in capfd.readouterr().err


def test_an_error_in_the_rehearsal_is_left_to_mempalace(tmp_path: Path) -> None:
    mine = Mine(tmp_path).apply()
    answers = iter([OSError("busy")])

    def get(**query: Any) -> Any:
        for answer in answers:
            raise answer
        return {"ids": [], "metadatas": []}

    mine.opened[0].get = get  # type: ignore[method-assign]
    assert mine.file("heron fish") == 2
    assert not [step for step in mine.seen if step.startswith("embed")]


def test_the_end_of_the_broker_ends_the_mine_at_a_boundary(tmp_path: Path) -> None:
    mine = Mine(tmp_path).apply()

    def gone() -> bool:
        raise KeyboardInterrupt

    mine.mempalace.between_texts = gone
    with pytest.raises(KeyboardInterrupt):
        mine.file("heron fish")
    assert not [step for step in mine.seen if "store" in step or "delete" in step]
    assert mine.kept == [3, 0]


@pytest.mark.parametrize(
    "other",
    [
        {"palace": SimpleNamespace()},
        {"palace": None},
        {"miner": SimpleNamespace(process_file=lambda filepath, collection: None)},
        {"miner": None},
        {"convo_miner": SimpleNamespace(_file_chunks_locked=lambda chunks: None)},
        {"format_miner": None},
    ],
)
def test_another_miner_is_left_alone(tmp_path: Path, other: dict[str, Any]) -> None:
    mine = Mine(tmp_path, **other)
    with pytest.raises(DoesNotFit):
        mine.apply()
    assert mine.miner.process_file is process_file
    assert mine.mempalace.calls_at_boundary == 8


def test_without_embeddings_of_our_own_nothing_changes(tmp_path: Path) -> None:
    mine = Mine(tmp_path)
    mine.mempalace.prefetch_embedding = None
    with pytest.raises(DoesNotFit):
        mine.apply()
    assert mine.miner.process_file is process_file
