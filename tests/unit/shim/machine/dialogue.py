"""A ShimProtocol between an agent and a broker: what each sends and gets, as JSON. Time is a number that tests move."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mempalace_broker.protocol.framing import WriteBuffer
from mempalace_broker.protocol.hello import HELLO, OUTCOMES
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.shim.machine.effects import TranslatePaths, VerifyPalace
from mempalace_broker.shim.machine.protocol import ShimProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

Message = dict[str, Any]
PALACE = PalaceIdentity("/home/u/.mempalace/palace", "/home/u/.mempalace/knowledge_graph.sqlite3", "default")
LIMITS = {"wait_s": 60, "run_s": 60, "init_s": 120}
ADD = "mempalace_add_drawer"
SEARCH = "mempalace_search"


def drain(box: WriteBuffer) -> bytes:
    out = b""
    while box.size:
        piece = bytes(box.head())
        box.advance(len(piece))
        out += piece
    return out


def parsed(data: bytes) -> list[Any]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def call(id_: Any, tool: str = SEARCH, **arguments: Any) -> Message:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


def result(id_: Any, value: Any = None) -> Message:
    return {"jsonrpc": "2.0", "id": id_, "result": {} if value is None else value}


def cancelled(id_: Any) -> Message:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}}


def initialize(id_: Any = 0) -> Message:
    return {"jsonrpc": "2.0", "id": id_, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}


class Talk:
    """`agent` and `broker` send; `heard_by_agent` and `heard_by_broker` take what came out.

    `verify`: says of a welcome why that broker is not our palace's. Effects are carried out when the output is taken.
    """

    def __init__(self, cache: bytes | None = None, *, read_only: bool = False) -> None:
        self.now = 1000.0
        self.cache = cache
        self.verify: Callable[[Message], str] = lambda _welcome: ""
        self.protocol = ShimProtocol(
            session="ab" * 16,
            secret="cd" * 16,
            client="test",
            pid=7,
            cwd="/work/dir",
            home="/home/u",
            read_only=read_only,
        )

    def perform(self) -> None:
        """Carry out the effects, as the shim's loop does."""
        while self.protocol.effects:
            effect = self.protocol.effects.pop(0)
            if isinstance(effect, VerifyPalace):
                self.protocol.palace_verified(self.verify(dict(effect.welcome)), self.now)
            elif isinstance(effect, TranslatePaths):
                names = {path: effect.files["map"].get(path) for path in effect.paths}
                self.protocol.paths_translated(effect.key, names, self.now)
            else:
                self.protocol.answers_read(self.cache, self.now)

    def agent(self, *messages: Any) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.protocol.agent_data(line + b"\n", self.now)
            self.perform()

    def broker(self, *messages: Any) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.protocol.broker_data(line + b"\n", self.now)
            self.perform()

    def heard_by_agent(self) -> list[Any]:
        self.perform()
        return parsed(drain(self.protocol.to_agent))

    def heard_by_broker(self) -> list[Any]:
        self.perform()
        return parsed(drain(self.protocol.connection.to_broker))

    def welcome(self, **more: Any) -> None:
        self.broker(result(HELLO, {"wire": 1, "capabilities": ["secret"], "limits": LIMITS, **more}))

    def open(self) -> None:
        """Open a connection; the broker has said nothing yet."""
        self.protocol.connected(PALACE, None, self.now)

    def connect(self, **told: Any) -> list[Any]:
        """Open a connection and have hello accepted; return what the broker heard apart from hello.

        `told`: what the welcome says besides.
        """
        self.open()
        early = self.heard_by_broker()
        assert early.pop(0)["method"] == HELLO
        self.welcome(**told)
        return early + self.heard_by_broker()

    def lose(self) -> None:
        self.protocol.lost("killed", self.now)

    def outcomes(self, fates: dict[str, Any]) -> None:
        self.broker(result(OUTCOMES, {"outcomes": fates}))

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.protocol.tick(self.now)
        self.perform()
        self.protocol.tick(self.now)

    @property
    def error(self) -> Message:
        """The one error that the agent has just heard."""
        (message,) = self.heard_by_agent()
        error: Message = message["error"]
        return error
