"""The comparison of index and database is made again only where its verdict could be another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups import capacity
from mempalace_broker.engine.tuneups.capacity import CAPACITY_CACHE
from mempalace_broker.engine.tuneups.chroma_writes import Write
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.mempalace import FakeMempalace, touch

THRESHOLD = 2000


class Probe:
    """A palace whose index lacks some rows of its database, and mempalace's comparison of the two."""

    def __init__(self, palace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.palace = palace
        self.rows, self.indexed = 5000, 4900
        self.counted = self.read = 0
        self.now = 100.0
        self.files = [palace / "chroma.sqlite3", palace / "seg" / "index_metadata.pickle", palace / "seg/header.bin"]
        for file in self.files:
            touch(file, ago_s=60)
        self.after: Callable[[Write], None] = lambda _: None
        monkeypatch.setattr(capacity, "watch_writes", lambda after: setattr(self, "after", after))
        monkeypatch.setattr("mempalace_broker.engine.tuneups.capacity.monotonic", lambda: self.now)
        chroma: Any = SimpleNamespace()

        def _sqlite_embedding_count(palace_path: str, collection_name: str) -> int | None:
            self.counted += 1
            return self.rows

        def _hnsw_element_count(palace_path: str, segment_id: str) -> int:
            self.read += 1
            return self.indexed

        def hnsw_capacity_status(palace_path: str, collection_name: str = "mempalace_drawers") -> dict[str, Any]:
            rows, indexed = chroma._sqlite_embedding_count("", ""), chroma._hnsw_element_count(str(palace), "seg")
            missing = None if rows is None else rows - indexed
            status = "unknown" if missing is None else "diverged" if missing > THRESHOLD else "ok"
            return {"segment_id": "seg", "sqlite_count": rows, "hnsw_count": indexed, "status": status}

        vars(chroma).update(locals())
        self.reset = False
        chroma.reset_hnsw_capacity_cache = lambda: setattr(self, "reset", True)
        self.chroma = chroma
        self.server = SimpleNamespace(hnsw_capacity_status=hnsw_capacity_status)
        self.mempalace = FakeMempalace(palace, self.server, backends__chroma=chroma)

    def install(self) -> Probe:
        CAPACITY_CACHE.apply(self.mempalace)  # type: ignore[arg-type]
        return self

    def ask(self) -> str:
        assert self.chroma.hnsw_capacity_status is self.server.hnsw_capacity_status
        return str(self.server.hnsw_capacity_status(str(self.palace))["status"])

    def write(self, rows: int = 1) -> None:
        """Of our own."""
        self.rows += rows
        touch(self.files[0], ago_s=30)
        self.after(Write("drawers", ["an id"] * rows))

    def end_call(self) -> None:
        for step in self.mempalace.after_call:
            step()


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return Probe(tmp_path, monkeypatch).install()


def test_our_own_writes_need_no_new_comparison(probe: Probe) -> None:
    for _ in range(100):
        assert probe.ask() == "ok"
        probe.write()
        assert probe.ask() == "ok"  # in the same call
        probe.end_call()
    assert (probe.counted, probe.read) == (1, 1)


def test_a_verdict_that_own_writes_turn_is_the_true_one(probe: Probe) -> None:
    verdicts, truth = [], []
    for _ in range(200):
        probe.write(25)
        probe.end_call()
        verdicts.append(probe.ask())
        truth.append("diverged" if probe.rows - probe.indexed > THRESHOLD else "ok")
    assert verdicts == truth
    assert set(truth) == {"ok", "diverged"}
    assert probe.ask() == "diverged"


def test_anybody_elses_write_leads_to_a_new_comparison(probe: Probe) -> None:
    assert probe.ask() == "ok"
    probe.end_call()
    probe.rows += 5000
    touch(probe.files[0], ago_s=20)
    assert probe.ask() == "diverged"


@pytest.mark.parametrize("index", [1, 2])
def test_a_stored_index_leads_to_a_new_comparison(probe: Probe, index: int) -> None:
    assert probe.ask() == "ok"
    probe.indexed = 0
    touch(probe.files[index], ago_s=10)
    touch(probe.files[1], ago_s=10)
    assert probe.ask() == "diverged"


def test_a_comparison_grows_old(probe: Probe) -> None:
    probe.ask()
    probe.now += 61
    probe.ask()
    assert probe.counted == 2


def test_reconnect_compares_anew(probe: Probe) -> None:
    probe.ask()
    probe.chroma.reset_hnsw_capacity_cache()
    probe.ask()
    assert (probe.counted, probe.reset) == (2, True)


def test_what_could_not_be_measured_is_not_remembered(probe: Probe) -> None:
    probe.rows = None  # type: ignore[assignment]  # a locked database
    assert [probe.ask(), probe.ask()] == ["unknown", "unknown"]
    assert probe.counted == 2


def test_the_caller_may_change_the_answer_it_got(probe: Probe) -> None:
    probe.server.hnsw_capacity_status(str(probe.palace))["status"] = "diverged"
    assert probe.ask() == "ok"


@pytest.mark.parametrize("name", ["hnsw_capacity_status", "_sqlite_embedding_count", "_hnsw_element_count"])
def test_another_comparison_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    probe = Probe(tmp_path, monkeypatch)
    setattr(probe.chroma, name, lambda other: other)
    with pytest.raises(DoesNotFit):
        probe.install()
