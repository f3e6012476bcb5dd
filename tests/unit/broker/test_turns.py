"""What one turn of the loop reads from all connections that flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mempalace_broker.broker.turns import SHARE_S, Turns


class Desk:
    """Connections that need some reads, each of which takes a quarter of a turn. `seen`: whose they were."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = Turns(lambda: self.now)
        self.seen = ""

    def sends(self, name: str, reads: int, then: Callable[[], None] = lambda: None) -> None:
        left = reads

        def read() -> bool:
            nonlocal left
            left -= 1
            self.now += SHARE_S / 4
            then()
            self.seen += name
            return left > 0

        self.turns.add(read)


def test_a_turn_ends_when_its_time_is_over_and_each_connection_has_its_share() -> None:
    async def main() -> None:
        desk = Desk()
        desk.sends("a", 6)
        assert desk.seen == "aaaa"
        desk.sends("b", 3)
        desk.sends("c", 1)
        assert desk.seen == "aaaa", "nothing is left of this turn, whoever comes"
        await asyncio.sleep(0)
        assert desk.seen == "aaaa" + "abca"
        await asyncio.sleep(0)
        assert desk.seen == "aaaa" + "abca" + "bb"

    asyncio.run(main())


def test_who_is_added_for_later_waits_for_the_next_turn() -> None:
    async def main() -> None:
        seen: list[str] = []
        turns = Turns()
        turns.add_later(lambda: bool(seen.append("a")))  # type: ignore[func-returns-value]
        assert seen == []
        await asyncio.sleep(0)
        assert seen == ["a"]

    asyncio.run(main())


def test_who_comes_within_a_read_waits_for_its_end() -> None:
    async def main() -> None:
        desk = Desk()
        desk.sends("a", 1, lambda: desk.sends("b", 1))
        assert desk.seen == "ab"

    asyncio.run(main())


def test_a_read_that_fails_is_reported_and_costs_the_others_nothing() -> None:
    async def main() -> None:
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        desk = Desk()

        def fail() -> bool:
            raise RuntimeError("broken")

        desk.turns.add(fail)
        desk.sends("a", 1)
        assert desk.seen == "a"
        assert [str(failure) for failure in failures] == ["broken"]

    asyncio.run(main())
