"""Following a log that grows and is rotated."""

from __future__ import annotations

from pathlib import Path

from mempalace_broker.cli import logs
from mempalace_broker.system.clock import Clock


class Scripted(Clock):
    """A clock whose pauses do something."""

    def __init__(self, *acts: object) -> None:
        self.acts = list(acts)

    def sleep(self, seconds: float) -> None:
        act = self.acts.pop(0)
        assert callable(act)
        act()


def test_growth_is_followed_over_a_turn_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")

    def add() -> None:
        with path.open("a") as file:
            file.write("one\n")

    def turn() -> None:
        with path.open("a") as file:
            file.write("two\n")
        path.rename(tmp_path / "log.1")
        path.write_text("three\n")

    grown = logs.grown(str(path), Scripted(add, turn))
    assert [next(grown), next(grown), next(grown)] == ["one\n", "two\n", "three\n"]
    grown.close()  # type: ignore[attr-defined]  # a generator, typed as an iterator


def test_a_turn_over_between_rename_and_create_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    grown = logs.grown(str(path), Scripted(lambda: path.rename(tmp_path / "log.1"), lambda: path.write_text("new\n")))
    assert next(grown) == "new\n"
    grown.close()  # type: ignore[attr-defined]  # as above
