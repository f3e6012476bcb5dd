"""Dialogues with the broker's protocol: lines and engine events in, effects out, and a clock that is moved by hand."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.answers import Answers
from mempalace_broker.broker.machine.greeting import Host
from mempalace_broker.broker.machine.lifecycle import Lifecycle
from mempalace_broker.broker.machine.protocol import BrokerProtocol
from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.session import Origin, Session
from mempalace_broker.broker.machine.supervisor import EngineAction, Policy
from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.protocol.engine_frames import PREFETCH, Frame, FrameDecoder
from mempalace_broker.protocol.framing import TooLong
from mempalace_broker.protocol.hello import OUTCOMES, hello_request
from mempalace_broker.protocol.palace import FileView, PalaceIdentity

PALACE = PalaceIdentity("/home/u/.mempalace/palace", "/home/u/.mempalace/knowledge_graph.sqlite3", "default")
TOOLS = [{"name": name} for name in ("mempalace_search", "mempalace_add_drawer", "mempalace_diary_write", "strange")]

ADD, DIARY, DELETE = "mempalace_add_drawer", "mempalace_diary_write", "mempalace_delete_drawer"
SECRET = "5ec7e7" * 6
SEARCH, KG_ADD, KG_QUERY, WAIT = "mempalace_search", "mempalace_kg_add", "mempalace_kg_query", "mempalace_event_wait"


def request(id_: object, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def call(id_: object, tool: str, **arguments: Any) -> dict[str, Any]:
    return request(id_, "tools/call", name=tool, arguments=arguments)


def cancel(id_: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}}


def key(connection: int, ordinal: int, part: int = 0, secret: str = SECRET) -> str:
    """Journal key of a write of a session with that secret."""
    session = Session(0, 0.0, 0, "")
    session.bind("s", secret, connection)
    return session.key_of(connection, ordinal, part)


def result(id_: object, text: str = "ok") -> bytes:
    content = [{"type": "text", "text": text}]
    return json.dumps({"jsonrpc": "2.0", "id": id_, "result": {"content": content}}).encode()


class Talk:
    """A protocol, its clock, and the effects that no assertion has looked at yet."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        policy: Policy | None = None,
        idle_s: float = 0.0,
        up: bool = True,
        settled: bool = True,
        since: int = 0,
        view: FileView | None = None,
    ) -> None:
        self.now = 100.0
        self.mounts: list[list[str]] = []
        self.leased = True  # whether the palace is ours
        self.confirms = True  # whether the lease is confirmed as soon as that is asked
        self.protocol = BrokerProtocol(
            Host(PALACE, limits or Limits(), {"record": "r", "broker": "1", "pid": 42}, view),
            policy=policy or Policy(),
            rng=lambda: 0.0,
            answers=Answers("3.11.0"),
            label="raw0x",
            lifecycle=Lifecycle(idle_s=idle_s, drain_s=5.0, now=self.now),
            since=since,
        )
        self.dispatcher = self.protocol.dispatcher
        self.seen: list[fx.Effect] = []
        self.inside: list[Frame] = []  # calls that are in the engine
        self.prefetches: list[Frame] = []
        self._decoder = FrameDecoder()
        self.dispatcher.start(self.now)
        if settled:
            self.dispatcher.journal({}, set(), self.now, float("-inf"))
        if up:
            self.engine_up()

    # -- what happens

    def turn(self) -> None:
        self.protocol.settle(self.now)
        while batch := self.protocol.take():
            for effect in batch:
                self._carry_out(effect)
            self.protocol.settle(self.now)

    def _carry_out(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.ToEngine):
            for frame in self._decoder.feed(effect.data):
                (self.prefetches if frame.verb == PREFETCH else self.inside).append(frame)
        elif isinstance(effect, fx.Close):
            self.protocol.closed(effect.conn, self.now)
        elif isinstance(effect, fx.ConfirmLease) and self.confirms:
            self.lease()
        elif isinstance(effect, fx.SendStatus):
            effect = fx.Send(
                effect.conn, rpc.result_line(effect.id, {"now": self.now} | ({"brief": True} if effect.brief else {}))
            )
        elif isinstance(effect, fx.SendWelcome):
            if effect.with_mounts:
                effect.welcome["files"]["mounts"] = self.mounts
            if effect.guest and "files" in effect.welcome:
                effect.welcome["files"]["proof"] = "a name"
            effect = fx.Send(effect.conn, rpc.result_line(effect.id, effect.welcome))
        self.seen.append(effect)

    def lease(self) -> None:
        """The lease is confirmed, or lost."""
        if self.leased:
            self.dispatcher.lease_confirmed(self.now)
        else:
            self.dispatcher.lease_lost()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.protocol.tick(self.now)
        self.turn()

    def opens(self, *conns: int, origin: Origin = Origin.HOST) -> None:
        for conn in conns:
            self.protocol.opened(conn, self.now, origin=origin)

    def greets(self, conn: int, session: str = "abc", connection: int = 1, **changes: Any) -> None:
        self.opens(conn)
        hello = hello_request(
            session=session, secret=SECRET, connection=connection, identity=PALACE, client="test", pid=7
        )
        hello["params"].update(changes)
        self.says(conn, hello)

    def says(self, conn: int, *messages: object) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.reads(conn, line)
        self.turn()

    def reads(self, conn: int, *lines: bytes | TooLong) -> None:
        """These lines came in one piece; the client gets its share of each turn until it has had its say."""
        left = deque(lines)
        while self.protocol.work(conn, left, self.now):
            self.turn()

    def gone(self, conn: int) -> None:
        self.protocol.closed(conn, self.now)
        self.turn()

    def asks(self, conn: int, connection: int, *lines: int, **more: Any) -> None:
        self.says(conn, request(OUTCOMES, OUTCOMES, connection=connection, lines=list(lines), age_s=1.0, **more))

    # -- what the engine does

    def engine_up(self, **told: Any) -> None:
        self.dispatcher.spawned(self.now, 1000)
        hello = {"version": "3.11.0", "tools": TOOLS, **told}
        self.dispatcher.frame(Frame("hello", payload=json.dumps(hello).encode()), self.now)
        self.dispatcher.frame(Frame("ready", payload=b"{}"), self.now)
        self.turn()

    def done(self, frame: Frame, payload: bytes = b"", code: int = 0) -> None:
        body = payload or result(json.loads(frame.payload)["id"])
        self.inside.remove(frame)
        self.dispatcher.frame(Frame("done", frame.n, tag=str(code), payload=body), self.now)
        self.turn()

    def dies(self, ended: dict[str, bytes | None] | None = None, begun: tuple[str, ...] = ()) -> None:
        self.inside.clear()
        self.dispatcher.exited(self.now, "signal 9", ended or {}, set(begun))
        self.turn()

    def recovers(self) -> None:
        """The pause before the next engine passes, and it comes up."""
        while EngineAction.SPAWN not in self.engine():
            deadline = self.protocol.next_deadline()
            assert deadline is not None
            self.wait(max(0.0, deadline - self.now))
        self.engine_up()

    # -- what was said since the last assertion

    def _take(self, kind: type[fx.Effect]) -> list[Any]:
        out = [effect for effect in self.seen if isinstance(effect, kind)]
        self.seen = [effect for effect in self.seen if not isinstance(effect, kind)]
        return out

    def heard(self, conn: int) -> list[dict[str, Any]]:
        """What that client got."""
        sends = self._take(fx.Send)
        self.seen += [send for send in sends if send.conn != conn]
        return [json.loads(line) for send in sends if send.conn == conn for line in send.data.splitlines()]

    def answer(self, conn: int) -> dict[str, Any]:
        """The one message that client got."""
        heard = self.heard(conn)
        assert len(heard) == 1, heard
        return heard[0]

    def code(self, conn: int) -> int:
        """Error code of the one answer; 0 for a result."""
        code: int = self.answer(conn).get("error", {}).get("code", 0)
        return code

    def engine(self) -> list[EngineAction]:
        return [effect.action for effect in self._take(fx.ControlEngine)]

    def confirmations(self) -> int:
        """How often the lease was to be confirmed."""
        return len(self._take(fx.ConfirmLease))

    def closes(self) -> list[int]:
        return [effect.conn for effect in self._take(fx.Close)]

    def quits(self) -> list[str]:
        return [effect.reason for effect in self._take(fx.Quit)]

    def ids(self) -> list[object]:
        """Ids of the calls that are in the engine."""
        return [json.loads(frame.payload)["id"] for frame in self.inside]

    def frame(self, id_: object) -> Frame:
        return next(frame for frame in self.inside if json.loads(frame.payload)["id"] == id_)
