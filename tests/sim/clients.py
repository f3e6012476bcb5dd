"""The broker's clients: agents behind a real ShimProtocol, and bare clients; each follows a script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mempalace_broker.errors import NOT_EXECUTED
from mempalace_broker.protocol.framing import LineReader
from mempalace_broker.shim.machine.effects import TranslatePaths, VerifyPalace
from mempalace_broker.shim.machine.protocol import ShimProtocol

from .clockwork import Actor
from .wire import Wire

if TYPE_CHECKING:
    from .world import World

Request = dict[str, Any]


def request_line(request: Request) -> bytes:
    return json.dumps(request).encode() + b"\n"


class Agent(Actor):
    """An agent behind an mp-shim: one connection at a time, and the answers that reach the agent."""

    def __init__(self, world: World, name: str, session: str) -> None:
        super().__init__(world.loop)
        self.world = world
        self.name = name
        self.protocol = ShimProtocol(
            session=session,
            secret=session.ljust(32, "0"),
            client=name,
            pid=1,
            cwd="/w",
            home="/h",
        )
        self._wire: Wire | None = None
        self._dialling = False
        self._answers = LineReader()
        self._timer = 0
        self._timer_at = float("inf")

    # -- the agent

    def say(self, request: Request) -> None:
        """The agent writes a line."""
        if self.alive:
            self.world.history.asked(self.name, request, self.loop.now)
            self.deliver(lambda: self._said(request))

    def _said(self, request: Request) -> None:
        self.protocol.agent_data(request_line(request), self.loop.now)
        self.world.history.withdrawn(self.name, request)
        self._turn()

    def eof(self) -> None:
        """The agent closes its end, and still wants its answers."""
        self.deliver(self._eof)

    def _eof(self) -> None:
        self.protocol.agent_eof(self.loop.now)
        self._turn()

    def kill(self) -> None:
        """kill -9 of the shim."""
        self.alive = False
        self.world.history.killed(self.name)
        if self._wire is not None:
            self._wire.cut()

    def cut(self) -> None:
        """The connection breaks."""
        if self._wire is not None:
            self._wire.cut()

    # -- the connection

    def got(self, wire: Wire, data: bytes) -> None:
        self.deliver(lambda: self._got(wire, data))

    def _got(self, wire: Wire, data: bytes) -> None:
        if wire is self._wire:
            self.protocol.broker_data(data, self.loop.now)
            self._turn()

    def hung_up(self, wire: Wire) -> None:
        self.deliver(lambda: self._lost(wire, "end of file"))

    def _lost(self, wire: Wire, reason: str) -> None:
        if wire is self._wire:
            self._wire = None
            wire.close(self)
            self.protocol.lost(reason, self.loop.now)
            self._turn()

    def _dial(self) -> None:
        self._dialling = False
        broker = self.world.broker
        if broker is not None and broker.listening:
            self._wire = Wire(self.loop, self.world.rng, self, broker)
            broker.accept(self._wire)
            self.protocol.connected(self.world.identity, None, self.loop.now)
        elif self.world.rng.random() < self.world.faults.no_broker:
            self.protocol.failed(NOT_EXECUTED, "no broker could be started.", self.loop.now)
        else:
            self.world.start_broker()
            self._dialling = True
            self.after(0.05 + self.world.rng.random() * 0.3, self._dial)
            return
        self._turn()

    def _turn(self) -> None:
        protocol = self.protocol
        self._perform_effects()
        self._write()
        if protocol.connection.broken and self._wire is not None:
            self._lost(self._wire, protocol.connection.broken)
            return
        if protocol.finished(self.loop.now):
            self.alive = False
            if self._wire is not None:
                self._wire.close(self)
            return
        if not self._dialling and self._wire is None and protocol.wants_connection(self.loop.now):
            self._dialling = True
            self.after(0.002, self._dial)
        at = protocol.next_deadline(self.loop.now)
        if at < self._timer_at:
            self._timer_at = at
            self._timer += 1
            mine = self._timer
            self.after(at - self.loop.now, lambda: self._tick(mine))

    def _perform_effects(self) -> None:
        while self.protocol.effects:
            effect = self.protocol.effects.pop(0)
            if isinstance(effect, VerifyPalace):
                self.protocol.palace_verified("", self.loop.now)
            elif isinstance(effect, TranslatePaths):
                self.protocol.paths_translated(effect.key, {path: path for path in effect.paths}, self.loop.now)
            else:
                self.protocol.answers_read(self.world.disk.answers, self.loop.now)

    def _write(self) -> None:
        for box, sink in (
            (self.protocol.connection.to_broker, self._to_broker),
            (self.protocol.to_agent, self._to_agent),
        ):
            while data := bytes(box.head()):
                box.advance(len(data))
                sink(data)

    def _to_broker(self, data: bytes) -> None:
        if self._wire is not None:
            self._wire.send(self, data)

    def _to_agent(self, data: bytes) -> None:
        for line in self._answers.feed(data):
            assert isinstance(line, bytes)
            self.world.history.answered(self.name, json.loads(line), self.loop.now)

    def _tick(self, mine: int) -> None:
        if mine == self._timer:
            self._timer_at = float("inf")
            self.protocol.tick(self.loop.now)
            self._turn()


class Bare(Actor):
    """A bare client on the socket: no hello, no second connection."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world.loop)
        self.world = world
        self.name = name
        self._wire: Wire | None = None
        self._answers = LineReader()

    def say(self, request: Request) -> None:
        """Write a line, on the first connection that can be had."""
        broker = self.world.broker
        if self._wire is None and broker is not None and broker.listening and self.alive:
            self._wire = Wire(self.loop, self.world.rng, self, broker)
            broker.accept(self._wire)
        if self._wire is not None:
            self.world.history.asked(self.name, request, self.loop.now)
            self._wire.send(self, request_line(request))

    def cut(self) -> None:
        """The connection breaks."""
        if self._wire is not None:
            self._wire.cut()

    def kill(self) -> None:
        """Gone."""
        self.alive = False
        self.cut()
        self.world.history.killed(self.name)

    def got(self, wire: Wire, data: bytes) -> None:
        for line in self._answers.feed(data):
            assert isinstance(line, bytes)
            if self.alive:
                self.world.history.answered(self.name, json.loads(line), self.loop.now)

    def hung_up(self, wire: Wire) -> None:
        self.alive = False
        wire.close(self)
        self.world.history.killed(self.name)
