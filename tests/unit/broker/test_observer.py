"""The last errors, and what the log says of them."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.broker.machine.effects import CallFailed, Log
from mempalace_broker.broker.machine.session import Session
from mempalace_broker.broker.machine.traffic import Traffic
from mempalace_broker.broker.observer import Observer
from mempalace_broker.errors import WAIT_TIMEOUT
from tests.fakes.clock import FakeClock
from tests.unit.broker.machine.test_traffic import arrived


class Desk:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.traffic = Traffic()
        self.session = Session(1, 0.0, 7, "ab12cd34", agent="codex")
        protocol = SimpleNamespace(sessions={1: self.session}, dispatcher=SimpleNamespace(traffic=self.traffic))
        self.observer = Observer(cast(Any, protocol), self.clock, logging.getLogger("mempalace_broker.test"))

    def fails(self, text: str = "waited 60 s") -> None:
        self.observer.call_failed(CallFailed(arrived(self.clock.monotonic()), WAIT_TIMEOUT, text))

    @property
    def counted(self) -> int:
        now = self.clock.monotonic()
        return sum(self.traffic.as_json(now, now)["errors"])


@pytest.fixture
def desk(caplog: pytest.LogCaptureFixture) -> Desk:
    caplog.set_level(logging.INFO, "mempalace_broker.test")
    return Desk()


def test_an_error_is_kept_counted_and_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.fails()
    (error,) = desk.observer.errors
    assert error == {
        "at": round(desk.clock.wall(), 1),
        "session": "ab12cd34",
        "agent": "codex",
        "tool": "mempalace_search",
        "code": WAIT_TIMEOUT,
        "text": "waited 60 s",
    }
    assert desk.counted == 1
    (record,) = caplog.records
    assert "mempalace_search of session ab12cd34 failed" in record.getMessage()
    assert vars(record)["agent"] == "codex"


def test_the_engines_own_words_are_not_quoted_nor_its_errors_counted_again(desk: Desk) -> None:
    desk.fails("")
    assert desk.observer.errors[0]["text"] == "answered by mempalace with an error"
    assert desk.counted == 0, "the dispatcher has counted it"


def test_a_flood_of_errors_is_kept_and_logged_in_part(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        desk.fails()
    assert len(desk.observer.errors) == 20
    assert len(caplog.records) == 20
    desk.clock.move(10.0)
    desk.fails()
    assert [record.getMessage() for record in caplog.records[20:21]] == ["80 more calls failed"]
    assert len(caplog.records) == 22


def test_a_line_about_a_session(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.observer.log(Log("warning", "it ended", desk.session))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage(), vars(record)["session"]) == ("WARNING", "it ended", "ab12cd34")
