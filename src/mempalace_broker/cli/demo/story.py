"""What the demo does: three sessions file at once, the engine is killed, a fourth session finds everything."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import OUTCOME_UNKNOWN, BrokerError
from .agent import Agent, CallFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .home import DemoHome
    from .show import Show
    from .texts import Piece

WRITERS = ("ada", "ben", "cleo")
READER = "dora"
WING = "demo"
KILL_AT = 0.4  # of all pieces acknowledged
FILING_S = 240.0
PAGE = 100
MOST_QUESTIONS = 3
QUESTIONS = {  # on the texts that come with the demo
    "palaces": "Who could name the dead because he knew where they had been sitting?",
    "locks": "Why must a lock file never be deleted?",
    "harbour": "What happened when two people gave out the same berth?",
}


class Story:
    """One run. `status` asks the broker for its snapshot.

    Attributes:
        checks: what held and what did not, and facts: figures, both as the report has them.
        agents: every session opened. stored: drawer id -> piece, acknowledged. failures: what should not have happened.
    """

    def __init__(
        self, home: DemoHome, pieces: Sequence[Piece], show: Show, status: Callable[[], dict[str, Any]]
    ) -> None:
        self.home = home
        self.pieces = pieces
        self.show = show
        self.status = status
        self.checks: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.agents: list[Agent] = []
        self.stored: dict[str, Piece] = {}
        self.failures: list[str] = []
        self._asked_again = 0
        self._killed_at = self._answered_at = 0.0  # when the engine was killed, and the next answer came
        self._lock = threading.Lock()  # for the threads that file

    def run(self) -> None:
        """Run every step. Raises CallFailed where it is pointless to continue."""
        writers = self._open_sessions()
        self._file(writers)
        self._note(writers)
        self._read_back(self._session(READER))
        self._look_at_owner()

    def check(self, name: str, ok: bool, detail: str) -> None:
        """Note it and show it."""
        self.checks.append({"name": name, "ok": bool(ok), "detail": detail})
        self.show.check(name, ok, detail)

    # -- the steps

    def _session(self, name: str) -> Agent:
        agent = Agent(name, self.home.shim, self.home.env, self.home.root)
        self.agents.append(agent)  # before anything can go wrong, so that the end of the demo ends it
        agent.initialize()
        return agent

    def _open_sessions(self) -> list[Agent]:
        self.show.step("three agents open a session at the same moment, on a cold machine")
        in_parallel([partial(self._session, name) for name in WRITERS], FILING_S)
        writers = sorted(self.agents, key=lambda agent: agent.name)
        if len(writers) < len(WRITERS):
            raise CallFailed("not every session came up")
        slowest = max(agent.start_s for agent in writers)
        self.facts["cold_start_s"] = round(slowest, 3)
        tools = len(writers[0].tools())
        snapshot = self.status()
        self.check(
            "one broker",
            snapshot.get("running", False) and len(snapshot["sessions"]) >= len(WRITERS),
            f"pid {snapshot.get('broker', {}).get('pid')} serves {len(snapshot.get('sessions', []))} sessions; "
            f"{tools} tools; slowest first answer {slowest * 1000:.0f} ms",
        )
        return writers

    def _file(self, writers: list[Agent]) -> None:
        count = len(self.pieces)
        self.show.step(f"they file {count} pieces of text at the same time; in the middle the engine gets kill -9")
        begun = time.monotonic()
        shares = [self.pieces[i :: len(writers)] for i in range(len(writers))]
        with self.show.progress(count) as advance:
            pairs = zip(writers, shares, strict=True)
            in_parallel([partial(self._write, agent, share, advance) for agent, share in pairs], FILING_S)
        if self._killed_at and not self._answered_at:  # a short text: all was filed by then
            writers[0].call("list_drawers", wing=WING, limit=1)
            self._answered_at = time.monotonic()
        self.facts["filing_s"] = round(time.monotonic() - begun, 3)
        self.check("every piece filed", not self.failures and len(self.stored) == count, self._filed(count))
        pause = self._answered_at - self._killed_at
        again = f", {self._asked_again} asked again" if self._asked_again else ""
        detail = (
            f"next answer {pause:.2f} s after the kill{again}"
            if self._killed_at
            else "the engine was not killed in time"
        )
        self.check("the engine's death was a pause", bool(self._killed_at and self._answered_at), detail)
        self.facts["pause_after_kill_s"] = round(pause, 3)

    def _filed(self, count: int) -> str:
        failed = f"; {len(self.failures)} failed, first: {self.failures[0]}" if self.failures else ""
        return f"{len(self.stored)} of {count} acknowledged in {self.facts['filing_s']:.1f} s{failed}"

    def _write(self, agent: Agent, share: Sequence[Piece], advance: Callable[[], None]) -> None:
        """File a share, in a thread of its own."""
        for piece in share:
            try:
                answer = self._add(agent, piece)
            except CallFailed as exc:
                self.failures.append(exc.message)
                continue
            drawer = answer.get("drawer_id") if isinstance(answer, dict) else None
            if drawer and answer.get("success", True):
                self._acknowledged(str(drawer), piece)
                advance()
            else:
                self.failures.append(f"{agent.name}: {answer!r:.200}")

    def _add(self, agent: Agent, piece: Piece) -> Any:
        what = {"wing": WING, "room": piece.room, "content": piece.text, "source_file": piece.source}
        try:
            return agent.call("add_drawer", added_by=agent.name, **what)
        except CallFailed as exc:
            if exc.code != OUTCOME_UNKNOWN:
                raise
            with self._lock:
                self._asked_again += 1
            return agent.call("add_drawer", added_by=agent.name, **what)  # twice is once: its id is its content

    def _acknowledged(self, drawer: str, piece: Piece) -> None:
        """A drawer was answered with success; one of them is the signal to kill the engine."""
        with self._lock:
            self.stored[drawer] = piece
            if self._killed_at and not self._answered_at:
                self._answered_at = time.monotonic()
            if not self._killed_at and len(self.stored) >= max(1, int(len(self.pieces) * KILL_AT)):
                self._kill_engine()

    def _kill_engine(self) -> None:
        pid = self.status()["engine"]["pid"]
        if not pid:
            self.failures.append("no engine to kill")
            return
        os.kill(pid, signal.SIGKILL)
        self._killed_at = time.monotonic()
        self.facts["killed_engine_pid"] = pid
        self.show.note(f"kill -9 {pid} (the engine), with {len(self.stored)} drawers acknowledged")

    def _note(self, writers: list[Agent]) -> None:
        self.show.step("each of them writes its diary and adds facts to the knowledge graph")
        rooms = sorted({piece.room for piece in self.pieces})[:12]
        wrong: list[str] = []

        def write(agent: Agent) -> None:
            entry = f"{agent.name} filed a share of {', '.join(rooms)} and lived through the death of an engine."
            agent.call("diary_write", agent_name=agent.name, entry=entry, topic="demo")
            for room in rooms:
                agent.call("kg_add", subject=agent.name, predicate="filed_from", object=room)
            if "lived through" not in str(agent.call("diary_read", agent_name=agent.name)):
                wrong.append(f"{agent.name}'s diary")

        in_parallel([partial(write, agent) for agent in writers], FILING_S)
        for agent in writers:
            facts = str(writers[0].call("kg_query", entity=agent.name))
            wrong.extend(f"{agent.name} filed_from {room}" for room in rooms if room not in facts)
        said = f"{len(writers)} entries, {len(writers) * len(rooms)} facts"
        self.check("diary and knowledge graph", not wrong, said + (f"; missing: {wrong[:3]}" if wrong else ""))

    def _read_back(self, reader: Agent) -> None:
        self.show.step("a fourth agent looks for everything, by id and by meaning")
        self.facts["warm_start_s"] = round(reader.start_s, 3)
        stored = self.stored
        lost, unfound = [], []
        with self.show.progress(len(stored)) as advance:
            for drawer, piece in stored.items():
                if piece.text not in _texts(reader.call("get_drawer", drawer_id=drawer)):
                    lost.append(drawer)
                hits = _texts(reader.call("search", query=piece.text[:200], wing=WING, limit=5))
                if piece.text not in hits:
                    unfound.append(drawer)
                advance()
        self.check("all there by id", not lost, f"{len(stored) - len(lost)} of {len(stored)} drawers, text identical")
        self.check("all found by search", not unfound, f"{len(stored) - len(unfound)} of {len(stored)} drawers")
        self._ask(reader)
        listed = self._list(reader)
        extra = len(listed) - len(set(listed) & set(stored))
        self.check("nothing doubled", len(listed) == len(stored) and not extra, f"{len(listed)} drawers in the wing")

    def _ask(self, reader: Agent) -> None:
        """One question on each text, as a person would put it."""
        by_room = {piece.room: piece for piece in self.stored.values()}
        for room, piece in sorted(by_room.items())[:MOST_QUESTIONS]:
            question = QUESTIONS.get(room) or " ".join(piece.text.split()[:8])
            hits = reader.call("search", query=question, wing=WING, limit=1).get("results", [])
            text = hits[0].get("text", "") if hits else "nothing"
            self.show.note(f"{question}")
            self.show.note(f"  -> {text[:110]}...")

    def _list(self, reader: Agent) -> list[str]:
        found: list[str] = []
        while True:
            page = reader.call("list_drawers", wing=WING, limit=PAGE, offset=len(found))
            drawers = [str(entry.get("drawer_id")) for entry in page.get("drawers", [])]
            found.extend(drawers)
            if len(drawers) < PAGE:
                return found

    def _look_at_owner(self) -> None:
        from ...doctor.open_files import find_open_files

        seen = find_open_files(str(self.home.palace))
        engine = self.status()["engine"]["pid"]
        pids = sorted({opener.pid for opener in seen})
        self.check("one process has the palace open", pids == [engine], f"pid {', '.join(map(str, pids)) or 'none'}")
        left = [name for name in os.listdir(self.home.palace) if ".corrupt" in name or ".drift" in name]
        self.check("no damaged index set aside", not left, ", ".join(left) or "no .corrupt or .drift files")


def _texts(answer: Any) -> list[str]:
    """Every text in an answer, wherever it stands: versions differ in the names around it."""
    if isinstance(answer, str):
        return [answer]
    if isinstance(answer, dict):
        return [text for value in answer.values() for text in _texts(value)]
    if isinstance(answer, list):
        return [text for value in answer for text in _texts(value)]
    return []


def in_parallel(jobs: Sequence[Callable[[], object]], limit_s: float) -> None:
    """Run jobs in threads and wait for all; the first BrokerError of any is raised, Ctrl-C comes through."""
    errors: list[BrokerError] = []

    def guarded(job: Callable[[], object]) -> None:
        try:
            job()
        except BrokerError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if errors:
        raise errors[0]
    if any(thread.is_alive() for thread in threads):
        raise CallFailed(f"not done within {limit_s:g} s")
