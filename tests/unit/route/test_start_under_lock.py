"""What a daemon's report becomes: a second look, a pause, another start, or an error that names its log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mempalace_broker.errors import BrokerError, BrokerUnavailable, StartFailed
from mempalace_broker.route.attempt import Connected, Failed, StartPolicy, Waiting
from mempalace_broker.route.bridge.files import BridgeFiles
from mempalace_broker.route.bridge.wire import SshTarget
from mempalace_broker.route.start_under_lock import MAX_STARTS, Daemon, StartUnderLock
from mempalace_broker.system.clock import Deadline
from mempalace_broker.system.spawn import StartPipe
from tests.fakes.clock import FakeClock


class Scripted(StartUnderLock):
    """Nobody ever listens; each start reports the next of `reports` ("" is an end without a word)."""

    def __init__(self, folder: Path, reports: list[str], *, heed_failures: bool = True) -> None:
        files = BridgeFiles(SshTarget("ferry"))
        files.folder, files.start_lock = str(folder), str(folder / "start")
        self.log = files.log = str(folder / "x.log")
        daemon = Daemon("ferry", "the river", files, lock=str(folder / "x"), hint="wait")
        self.clock = FakeClock()
        super().__init__(daemon, Deadline.after(self.clock, 60), StartPolicy(heed_failures=heed_failures))
        self.reports = reports
        self.looks: list[str] = []

    def _look(self, lock: str) -> Connected | Waiting | None:
        self.looks.append(lock)
        return None if lock != "held" else self._pause("another client starts it")

    def _spawn_daemon(self) -> StartPipe:
        read, write = os.pipe()
        os.write(write, self.reports.pop(0).encode())
        os.close(write)
        return StartPipe(read, "")

    def _unavailable(self, why: str) -> BrokerError:
        return BrokerUnavailable(f"no ferry: {why}.")


def error(route: Scripted) -> BrokerError:
    found = route.step()
    assert isinstance(found, Failed)
    return found.error


def failed(**words: str) -> str:
    return json.dumps({"state": "failed", **words}) + "\n"


def test_a_report_becomes_an_error(tmp_path: Path) -> None:
    route = Scripted(tmp_path, [failed(reason="no engine", hint="install it")])
    found = error(route)
    assert str(found) == f"the ferry could not start: no engine (log: {route.log}) Hint: install it"
    assert isinstance(found, StartFailed)


@pytest.mark.parametrize(("words", "expected"), [({}, "did not say why"), ({"reason": "see x.log"}, "see x.log")])
def test_a_report_without_a_reason_and_one_that_names_the_log(
    tmp_path: Path, words: dict[str, str], expected: str
) -> None:
    words = {name: text.replace("x.log", str(tmp_path / "x.log")) for name, text in words.items()}
    found = str(error(Scripted(tmp_path, [failed(**words)])))
    assert expected.replace("x.log", str(tmp_path / "x.log")) in found
    assert found.count(str(tmp_path / "x.log")) == 1


def test_sudden_ends_are_bad_luck_until_they_are_a_loop(tmp_path: Path) -> None:
    route = Scripted(tmp_path, [""] * MAX_STARTS)
    assert "ended before it could serve" in str(error(route))
    assert route.reports == []
    assert route.looks == ["free", "obtained", "obtained", "obtained"], "the lock stays ours in between"


def test_those_who_wait_take_the_failure_for_theirs(tmp_path: Path) -> None:
    assert "on fire" in str(error(Scripted(tmp_path, [failed(reason="on fire")])))
    second = Scripted(tmp_path, ["never read"])
    assert "on fire" in str(error(second))
    assert second.reports
    third = Scripted(tmp_path, [failed(reason="still on fire")], heed_failures=False)
    assert "still on fire" in str(error(third))


def test_a_lost_race_is_not_a_start(tmp_path: Path) -> None:
    route = Scripted(tmp_path, ['{"state": "lost_race"}\n'] * (MAX_STARTS + 1))
    for _ in range(MAX_STARTS + 1):
        waiting = route.step()
        assert isinstance(waiting, Waiting)
        assert waiting.why == "another ferry won the river and does not listen yet"
        route.clock.move(1)
    assert route.reports == []
