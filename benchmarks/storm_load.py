"""The storm's clients, and the ledger of what they were told.

Each client does one call at a time, as an agent does, on drawers of its own; what it is told goes into the ledger:
acknowledged, refused, or unknown. The ledger is what the palace is held to afterwards.
"""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks import driver, texts
from benchmarks.driver import Gone, Session, call, request, said
from benchmarks.world import World

OUTCOME_UNKNOWN = -32011
WRITES = frozenset({"add", "update", "delete", "kg_add", "diary"})
MIX = {"add": 8, "search": 6, "kg_add": 2, "diary": 2, "get": 2, "kg_query": 2, "update": 1, "delete": 1}
GRACE_S = 60.0  # an answer that takes longer is a hang
FIND_AMONG = 5


@dataclass
class Ledger:
    """What was promised, and what is open.

    Attributes:
        drawers: id -> texts that it may have; one text where nothing is open.
        deleted: ids whose deletion was acknowledged. maybe_gone: ids whose deletion is open.
        facts: (subject, object). diary: entry id -> (agent, entry).
        maybe: texts of adds and entries, and subjects of facts, whose fate is open.
        refused: texts that the server said it did not store.
    """

    drawers: dict[str, list[str]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    maybe_gone: set[str] = field(default_factory=set)
    facts: list[tuple[str, str]] = field(default_factory=list)
    diary: dict[str, tuple[str, str]] = field(default_factory=dict)
    maybe: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    acknowledged: int = 0


@dataclass
class Tally:
    """What happened to the calls."""

    calls: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    missed: int = 0  # a search for a drawer of one's own that did not return it
    astray: int = 0  # answers with another id than the one asked
    died: int = 0  # sessions that ended without being told to
    worst_s: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=dict)


class Client:
    """One agent: decides the next call, judges the answer."""

    def __init__(self, index: int, seed: int, ledger: Ledger, tally: Tally) -> None:
        self.index = index
        self.rng = random.Random(seed * 1000 + index)
        self.ledger = ledger
        self.tally = tally
        self.number = 0
        self.kind = ""
        self.data: Any = None
        self.own: list[str] = []
        self.mix = MIX

    def next(self) -> bytes:
        """The next call's line."""
        self.number += 1
        kinds = list(self.mix) if self.own else ["add"]
        self.kind = self.rng.choices(kinds, [self.mix[kind] for kind in kinds])[0]
        tool, arguments = getattr(self, f"_{self.kind}")()
        self.tally.calls[self.kind] += 1
        return call(self.number, tool, arguments)

    def initialize(self) -> bytes:
        self.number += 1
        self.kind = "initialize"
        return request(self.number, "initialize", driver.INITIALIZE)

    def _text(self, what: str) -> str:
        return f"{what} {self.index}-{self.number}: {texts.words(self.rng, self.rng.choice((8, 15, 30)))}"

    def _add(self) -> tuple[str, dict[str, object]]:
        self.data = self._text("storm")
        wing, room = f"w{self.rng.randrange(3)}", f"r{self.rng.randrange(5)}"
        return "add_drawer", {"wing": wing, "room": room, "content": self.data}

    def _search(self) -> tuple[str, dict[str, object]]:
        self.data = self.rng.choice(self.own)
        return "search", {"query": self.ledger.drawers[self.data][0], "limit": FIND_AMONG}

    def _get(self) -> tuple[str, dict[str, object]]:
        self.data = self.rng.choice(self.own)
        return "get_drawer", {"drawer_id": self.data}

    def _update(self) -> tuple[str, dict[str, object]]:
        drawer = self.rng.choice(self.own)
        self.data = (drawer, self._text("changed"))
        return "update_drawer", {"drawer_id": drawer, "content": self.data[1]}

    def _delete(self) -> tuple[str, dict[str, object]]:
        self.data = self.own.pop(self.rng.randrange(len(self.own)))
        return "delete_drawer", {"drawer_id": self.data}

    def _kg_add(self) -> tuple[str, dict[str, object]]:
        self.data = (f"subject_{self.index}_{self.number}", f"object_{self.index}_{self.number}")
        return "kg_add", {"subject": self.data[0], "predicate": "meets", "object": self.data[1]}

    def _kg_query(self) -> tuple[str, dict[str, object]]:
        return "kg_query", {"entity": f"subject_{self.index}_1"}

    def _diary(self) -> tuple[str, dict[str, object]]:
        self.data = self._text("diary")
        return "diary_write", {"agent_name": f"agent{self.index}", "entry": self.data}

    # -- answers

    def took(self, line: bytes, seconds: float) -> None:
        """Judge the answer to the call under way."""
        try:
            answer = json.loads(line)
        except ValueError:
            self.tally.astray += 1
            return
        if answer.get("id") != self.number:
            self.tally.astray += 1
            return
        if self.kind == "initialize":
            return
        self.tally.worst_s = max(self.tally.worst_s, seconds)
        self.tally.latencies.setdefault(self.kind, []).append(seconds)
        code = answer.get("error", {}).get("code", 0)
        result = said(answer)
        error = result.get("error") if isinstance(result, dict) else None
        if code == OUTCOME_UNKNOWN:
            self.lost_track()
        elif code or error or (isinstance(result, dict) and result.get("success") is False):
            self._refused(str(error or result)[:90])
        else:
            getattr(self, f"_done_{self.kind}", _nothing)(result)
            self.ledger.acknowledged += self.kind in WRITES

    def lost_track(self, *, killed: bool = False) -> None:
        """No answer, or one that says that nobody knows; `killed`: we ended the session, so a read did not fail."""
        ledger, data = self.ledger, self.data
        if self.kind in WRITES:
            self.tally.unknown += 1
        elif not killed:
            self.tally.failed[self.kind] += 1
            self.tally.reasons["no answer"] += 1
        if self.kind in ("add", "diary"):
            ledger.maybe.add(data)
        elif self.kind == "kg_add":
            ledger.maybe.add(data[0])
        elif self.kind == "update":
            ledger.drawers[data[0]].append(data[1])
        elif self.kind == "delete":
            ledger.maybe_gone.add(data)

    def _refused(self, reason: str) -> None:
        self.tally.failed[self.kind] += 1
        self.tally.reasons["".join("#" if c.isdigit() else c for c in reason)] += 1
        if self.kind in ("add", "diary"):
            self.ledger.refused.add(self.data)
        elif self.kind == "kg_add":
            self.ledger.refused.add(self.data[0])
        elif self.kind == "update":  # an engine's own error says little about how far it came
            self.ledger.drawers[self.data[0]].append(self.data[1])
        elif self.kind == "delete":
            self.ledger.maybe_gone.add(self.data)

    def _done_add(self, result: dict[str, Any]) -> None:
        self.ledger.drawers[result["drawer_id"]] = [self.data]
        self.own.append(result["drawer_id"])

    def _done_update(self, _: dict[str, Any]) -> None:
        self.ledger.drawers[self.data[0]] = [self.data[1]]

    def _done_delete(self, _: dict[str, Any]) -> None:
        self.ledger.deleted.add(self.data)
        del self.ledger.drawers[self.data]

    def _done_kg_add(self, _: dict[str, Any]) -> None:
        self.ledger.facts.append(self.data)

    def _done_diary(self, result: dict[str, Any]) -> None:
        self.ledger.diary[result["entry_id"]] = (f"agent{self.index}", self.data)

    def _done_search(self, result: dict[str, Any]) -> None:
        found = [hit.get("text", "") for hit in result.get("results", [])]
        if not any(text in found for text in self.ledger.drawers.get(self.data, [])):
            self.tally.missed += 1


def _nothing(_: Any) -> None:
    """Reads that need no bookkeeping."""


@dataclass
class Storm:
    """Clients on the sessions of one world, for a while, with accidents.

    Args:
        accidents: (second, what to do), in order. grace_s: how long an answer may take when the time is over.
    """

    world: World
    clients: list[Client]
    seconds: float
    accidents: list[tuple[float, Callable[[Storm], None]]]
    grace_s: float = GRACE_S
    sessions: dict[int, tuple[Session, Client]] = field(default_factory=dict)
    ended_s: float = 0.0

    def run(self) -> None:
        """Until the time is over and all answers are there, or the grace time too."""
        self._readers = selectors.DefaultSelector()
        self._begin()
        for client in self.clients:
            self.start(client)
        accidents = list(self.accidents)
        while self.sessions and time.monotonic() < self._end + self.grace_s:
            while accidents and self.ledger.acknowledged and time.monotonic() - self._begun >= accidents[0][0]:
                accidents.pop(0)[1](self)
            for key, _ in self._readers.select(0.05):
                if key.fd in self.sessions:
                    self._readable(key.fd)
        for session, client in list(self.sessions.values()):
            if session.sent_at:
                client.lost_track()
        self.ended_s = time.monotonic() - self._begun
        self._readers.close()

    @property
    def ledger(self) -> Ledger:
        return self.clients[0].ledger

    def _begin(self) -> None:
        """The time runs from here: again with the first acknowledged write, so that a slow start does not count."""
        self._begun = time.monotonic()
        self._end = self._begun + self.seconds

    def start(self, client: Client) -> None:
        """Give a client a server."""
        session = self.world.start()
        self.sessions[session.stdout] = (session, client)
        self._readers.register(session.stdout, selectors.EVENT_READ)
        self._send(session, client.initialize())

    def _send(self, session: Session, line: bytes) -> None:
        session.sent_at = time.monotonic()
        with contextlib.suppress(OSError):  # it is dying: its stdout says so at once
            session.send(line)

    def _readable(self, fd: int) -> None:
        session, client = self.sessions[fd]
        try:
            lines = session.receive()
        except Gone:
            client.tally.died += 1
            self.drop(session)
            if time.monotonic() < self._end:
                self.start(client)
            return
        for line in lines:
            now = time.monotonic()
            if not session.sent_at:
                client.tally.astray += 1
                continue
            was_calm = not self.ledger.acknowledged
            client.took(line, now - session.sent_at)
            if was_calm and self.ledger.acknowledged:
                self._begin()
            session.sent_at = 0.0
            if now < self._end:
                self._send(session, client.next())
            else:
                self._readers.unregister(fd)
                del self.sessions[fd]

    def drop(self, session: Session, *, killed: bool = False) -> None:
        """A session is gone; its call is unknown."""
        _, client = self.sessions.pop(session.stdout)
        self._readers.unregister(session.stdout)
        if session.sent_at and client.kind != "initialize":
            client.lost_track(killed=killed)
        session.kill()

    def kill_session(self) -> None:
        """kill -9 one session's server and start another, as an agent would."""
        session, client = next(iter(self.sessions.values()))
        self.drop(session, killed=True)
        self.start(client)
