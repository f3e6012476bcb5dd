"""mempalace asks for its check before the palace is opened, and gets the early verdict only where that was good."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups.apply import open_tuned
from mempalace_broker.engine.tuneups.early_check import EARLY_CHECK
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.mempalace import FakeMempalace


class Checking:
    """A mempalace that checks its database; `found` is what it found, `checked` how often it had to look."""

    def __init__(self, path: Path, *, sound: bool) -> None:
        self.found: list[Any] = []
        self.checked = 0

        def look(sqlite_path: str) -> list[str]:
            self.checked += 1
            return ["row 7 missing from index"]

        self.repair = SimpleNamespace(_quick_check_errors=look)
        self.server = SimpleNamespace(_ensure_sqlite_integrity_status=self.ensure)
        self.mempalace = FakeMempalace(path, self.server, repair=self.repair)
        check = SimpleNamespace(database="chroma.sqlite3", is_sound=lambda _: sound)
        self.mempalace.model = SimpleNamespace(database=check)
        self.look = look

    def ensure(self) -> None:
        if not self.found:
            self.found = [self.repair._quick_check_errors("chroma.sqlite3")]

    def apply(self) -> None:
        EARLY_CHECK.apply(self.mempalace)  # type: ignore[arg-type]

    def open_twice(self) -> None:
        for _ in range(2):
            assert [warning for step in self.mempalace.before_open for warning in step()] == []


@pytest.mark.parametrize("sound", [True, False])
def test_only_a_good_verdict_is_taken_and_only_at_the_first_opening(tmp_path: Path, sound: bool) -> None:
    checking = Checking(tmp_path, sound=sound)
    checking.apply()
    assert checking.checked == 0
    checking.open_twice()
    assert checking.found == ([[]] if sound else []), "mempalace asks later, as it is made to"
    assert checking.checked == 0
    assert checking.repair._quick_check_errors is checking.look
    checking.ensure()
    assert checking.found == [[] if sound else ["row 7 missing from index"]]


def test_a_mempalace_that_checks_otherwise_is_left_alone(tmp_path: Path) -> None:
    for broken in (
        lambda one: vars(one.server).clear(),
        lambda one: setattr(one.server, "_ensure_sqlite_integrity_status", lambda palace: None),
        lambda one: setattr(one.repair, "_quick_check_errors", lambda palace, deep: None),
        lambda one: one.mempalace.modules.clear(),
        lambda one: setattr(one.mempalace, "model", None),
    ):
        checking = Checking(tmp_path, sound=True)
        broken(checking)
        with pytest.raises(DoesNotFit):
            checking.apply()
        assert checking.mempalace.before_open == []


def test_the_palace_is_opened_once_the_check_has_ended_whoever_takes_its_verdict(tmp_path: Path) -> None:
    """Chroma has a SQLite of its own: Python's would drop Chroma's locks when it closes the same file."""
    steps: list[str] = []
    mempalace: Any = FakeMempalace(tmp_path)
    database = SimpleNamespace(wait=lambda: steps.append("checked"))
    mempalace.model = SimpleNamespace(database=database, wait=lambda: steps.append("loaded"))
    mempalace.options = SimpleNamespace(tune=False)
    mempalace.open_palace, mempalace.warm_up = lambda: steps.append("opened"), lambda _: None
    open_tuned(mempalace, [])
    assert steps == ["checked", "opened", "loaded"]
