"""A load of real sessions that remembers what it was told, and a verdict on what the palace holds afterwards.

    with Load(world, sessions=3) as load:
        load.wait_writes(20)
        ...the fault...
        load.wait_writes(20)          # it goes on afterwards
    load.verify()

Every write carries a token of its own. Acknowledged: there, once. Unknown: there at most once. Not executed: not there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from mempalace_broker import errors
from tests.harness import RpcError, RpcProcess, eventually

NOT_EXECUTED = {
    errors.NOT_EXECUTED,
    errors.WAIT_TIMEOUT,
    errors.RUN_TIMEOUT,
    errors.ENGINE_DOWN,
    errors.OVERLOADED,
}
DIARY_PAGE = 40  # entries of one diary: mempalace reads back 100 at most
PATIENCE_S = 60.0


class Agents(Protocol):
    """Who starts agents: a World, or a Side of one."""

    def shim(self, *, env: Mapping[str, str] | None = None) -> RpcProcess:
        """An mp-shim."""

    def log(self) -> str:
        """The broker's."""


class Session(threading.Thread):
    """One agent: drawers, diary entries, facts and searches in turn, until told to stop."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(name=f"session-{number}")
        self.load = load
        self.number = number
        self.shim: RpcProcess = load.world.shim(env=load.env)
        self.done = 0
        self.drawers: dict[str, str] = {}  # token -> drawer id
        self.diary: dict[str, str] = {}  # token -> agent
        self.facts: set[str] = set()
        self.unknown: set[str] = set()
        self.refused: dict[str, str] = {}  # token -> agent (diary) or ""
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.shim.initialize(self.load.patience)
            while not self.load.ending.is_set():
                self.step()
        except (AssertionError, OSError, ValueError, KeyError) as exc:
            if not self.load.may_lose(self):
                self.failure = exc

    def step(self) -> None:
        self.done += 1
        token = f"tok{self.number}x{self.done}e"
        kind = self.done % 4
        agent = f"agent{self.number}p{self.done // DIARY_PAGE}"
        try:
            if kind == 0:
                self.shim.call_tool("search", self.load.patience, query=f"note about {token}")
            elif kind == 1:
                text = f"note about {token} and the one writer"
                told = self.shim.call_tool(
                    "add_drawer", self.load.patience, wing=f"w{self.number}", room="r", content=text
                )
                assert told.get("success") is True, told
                self.drawers[token] = told["drawer_id"]
            elif kind == 2:
                told = self.shim.call_tool("diary_write", self.load.patience, agent_name=agent, entry=f"entry {token}")
                assert told.get("success") is True, told
                self.diary[token] = agent
            else:
                told = self.shim.call_tool("kg_add", self.load.patience, subject=token, predicate="is", object="stored")
                assert told.get("success") is True, told
                self.facts.add(token)
        except RpcError as error:
            if error.code == errors.OUTCOME_UNKNOWN:
                self.unknown.add(token)
            elif error.code in NOT_EXECUTED:
                self.refused[token] = agent if kind == 2 else ""
            else:
                raise


class Load:
    """Sessions at work in a world. Sessions whose shim the test killed are named to `forgive`.

    `first`: number of the first session; two loads on one palace need different ones. `patience`: for any answer.
    """

    def __init__(
        self,
        world: Agents,
        sessions: int = 3,
        env: dict[str, str] | None = None,
        *,
        first: int = 0,
        patience: float = PATIENCE_S,
    ) -> None:
        self.world = world
        self.patience = patience
        self.env = env
        self.ending = threading.Event()
        self._forgiven: set[int] = set()
        self.sessions = [Session(self, n) for n in range(first, first + sessions)]

    def __enter__(self) -> Self:
        for session in self.sessions:
            session.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ending.set()
        for session in self.sessions:
            session.join(2 * self.patience)
            assert not session.is_alive(), f"{session.name} got no answer"
        if exc is None:
            for session in self.sessions:
                if session.failure is not None:
                    raise AssertionError(f"{session.name}: {session.failure}") from session.failure
                assert session.number in self._forgiven or not session.shim.untaken(), "answered more than once"

    def forgive(self, session: Session) -> None:
        """Its shim is about to be killed."""
        self._forgiven.add(session.number)

    def may_lose(self, session: Session) -> bool:
        return session.number in self._forgiven

    @property
    def writes(self) -> int:
        """Acknowledged writes so far."""
        return sum(len(s.drawers) + len(s.diary) + len(s.facts) for s in self.sessions)

    def wait_writes(self, more: int, timeout: float = 60.0) -> None:
        """Wait until that many more writes are acknowledged."""
        goal = self.writes + more

        def reached() -> bool:
            failed = [s for s in self.sessions if s.failure is not None]
            if failed:  # no AssertionError: that would count as "not yet"
                raise RuntimeError(f"{failed[0].name}: {failed[0].failure!r}") from failed[0].failure
            return self.writes >= goal

        eventually(reached, timeout, f"{more} more acknowledged writes ({self.world.log()[-1500:]})")

    def verify(self, world: Agents | None = None) -> None:
        """Compare what was told with what a new session finds, here or in another `world`."""
        reader = (world or self.world).shim(env=self.env)
        reader.initialize(self.patience)
        assert self.writes, "a load without a single write proves nothing"
        for session in self.sessions:
            for token, drawer in session.drawers.items():
                told = reader.call_tool("get_drawer", self.patience, drawer_id=drawer)
                assert token in str(told), f"acknowledged drawer {drawer} is lost: {told}"
            for token in session.facts:
                found = facts(reader.call_tool("kg_query", self.patience, entity=token))
                assert len(found) == 1, f"acknowledged fact {token}: {found}"
            self._verify_diary(reader, session)
        reader.finish()

    def _verify_diary(self, reader: RpcProcess, session: Session) -> None:
        found: Counter[str] = Counter()
        for page in range(session.done // DIARY_PAGE + 1):
            agent = f"agent{session.number}p{page}"
            told = reader.call_tool("diary_read", self.patience, agent_name=agent, last_n=100)
            found.update(str(entry["content"]).removeprefix("entry ") for entry in told["entries"])
        assert not [token for token, count in found.items() if count > 1], f"stored twice: {found.most_common(3)}"
        lost = [token for token in session.diary if not found[token]]
        assert not lost, f"acknowledged diary entries are lost: {lost}"
        ghosts = [token for token, agent in session.refused.items() if agent and found[token]]
        assert not ghosts, f"answered as not executed, but stored: {ghosts}"


def facts(told: Any) -> list[Any]:
    """What kg_query found, in either version's shape."""
    if "facts" in told:  # 3.4.0
        return list(told["facts"])
    return [*told.get("active_facts", []), *told.get("ended_facts", [])]
