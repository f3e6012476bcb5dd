"""Which answers make the worker open the palace again before its next write, and how it does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine import worker as worker_module
from mempalace_broker.engine.call import Call
from mempalace_broker.engine.journal_file import JournalFile
from mempalace_broker.engine.parking import store_failed
from mempalace_broker.engine.worker import Worker
from mempalace_broker.protocol.engine_frames import CALL, DEGRADED, DONE, Frame
from tests.fakes.mempalace import FakeMempalace

FAILED = "Error in compaction: Failed to apply logs to the metadata segment"
WRITE = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "mempalace_add_drawer"}}'


@pytest.mark.parametrize(
    "text",
    [
        FAILED,
        "Error sending backfill request to compactor: Failed to apply logs to the metadata segment",
        "Query error: Database error: error returned from database: (code: 13) database or disk is full",
        "Query error: Database error: error returned from database: (code: 5) database is locked",
    ],
)
def test_words_of_chroma(text: str) -> None:
    assert store_failed(b'{"success": false, "error": "' + text.encode() + b'"}')


def test_other_answers() -> None:
    assert not store_failed(b'{"success": true}')
    assert not store_failed(b'{"success": false, "error": "content is empty"}')
    assert not store_failed(b"Error in compaction" + bytes(5000))


class Writing:
    """A worker whose first write fails; `steps` is what it did."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, journal: JournalFile | None = None) -> None:
        self.steps: list[str] = []
        self.texts = [FAILED]
        self.comes_back = True
        mempalace: Any = FakeMempalace(path)
        mempalace.options = SimpleNamespace(power_safe=False)
        mempalace.own_folders, mempalace.graph_path = list, lambda: None
        mempalace.handle, mempalace.finish_call, mempalace.open_palace = self.handle, lambda: None, lambda: None
        self.mempalace = mempalace
        monkeypatch.setattr(worker_module, "close_palace", self.close)
        monkeypatch.setattr(worker_module, "wait_for_palace", self.wait)
        pipes: Any = SimpleNamespace(send=lambda frame: self.steps.append(frame.verb))
        self.worker = Worker(pipes, mempalace, journal or JournalFile(None), SimpleNamespace())  # type: ignore[arg-type]
        self.worker._report = {"degraded": []}

    def handle(self, _request: Any) -> dict[str, Any]:
        self.steps.append("write")
        return {"jsonrpc": "2.0", "id": 1, "result": self.texts.pop() if self.texts else "stored"}

    def close(self, _mempalace: Any) -> str:
        self.steps.append("close")
        return ""

    def wait(self, *_: Any) -> bool:
        self.steps.append("wait")
        return self.comes_back

    def write(self, key: str = "k") -> list[str]:
        self.steps.clear()
        self.worker._run_palace(Call(Frame(CALL, 1, "palace", key, WRITE)), waited=False)
        return self.steps


def test_the_write_after_a_failed_one_opens_the_palace_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Writing(tmp_path, monkeypatch)
    assert writing.write() == ["write", DONE]
    assert writing.write("-") == ["write", DONE], "a read can read what is open"
    assert writing.write() == ["close", "wait", DEGRADED, "write", DONE]
    assert writing.write() == ["write", DONE]


def test_in_the_middle_of_a_mine_it_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Writing(tmp_path, monkeypatch)
    writing.write()
    writing.mempalace.between_texts = lambda: False
    assert writing.write() == ["write", DONE]
    writing.mempalace.between_texts = None
    assert writing.write() == ["close", "wait", DEGRADED, "write", DONE]


def test_without_the_broker_nothing_is_written_to_a_palace_that_may_be_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = Writing(tmp_path, monkeypatch)
    writing.write()
    writing.comes_back = False
    assert writing.write() == ["close", "wait"]


def test_a_journal_that_fails_and_works_again_is_reported_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "root"
    writing = Writing(tmp_path, monkeypatch, JournalFile(str(folder / "journal")))
    writing.texts.clear()
    writing.worker._ready.set()
    assert writing.write() == [DEGRADED, DONE]
    assert writing.write() == [DONE]
    folder.mkdir()
    assert writing.write() == ["write", DEGRADED, DONE]
    assert writing.write() == ["write", DONE]
