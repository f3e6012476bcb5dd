"""The broker of the simulated world: a real BrokerProtocol; its effects act on model connections and engines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.answers import Answers
from mempalace_broker.broker.machine.greeting import Host
from mempalace_broker.broker.machine.lifecycle import Lifecycle
from mempalace_broker.broker.machine.protocol import BrokerProtocol
from mempalace_broker.broker.machine.supervisor import EngineAction
from mempalace_broker.protocol import journal
from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.protocol.engine_frames import FrameDecoder, FrameError
from mempalace_broker.protocol.framing import LineReader

from .clockwork import Actor

if TYPE_CHECKING:
    from .engine import Engine
    from .wire import Wire
    from .world import World

LEAVES_S = 2.0
SYNC_S = 0.02  # of a record on a mount, at most


class Conn:
    """The broker's end of one connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reader = LineReader()


class Broker(Actor):
    """One broker process. `number` makes its names unique."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world.loop)
        self.world = world
        self.listening = True
        self.engine: Engine | None = None
        self.leaving = False
        answers = Answers("3.11.0")
        answers.load(world.disk.answers, "3.11.0")
        self.protocol = BrokerProtocol(
            Host(world.identity, world.limits, {"record": str(number), "broker": "0", "pid": number}),
            policy=world.policy,
            rng=world.rng.random,
            answers=answers,
            label=f"raw{number}x",
            lifecycle=Lifecycle(idle_s=world.idle_s, drain_s=2.0, now=self.loop.now),
        )
        self._conns: dict[Wire, Conn] = {}
        self._wires: dict[int, Wire] = {}
        self._count = 0
        self._decoder = FrameDecoder()
        self._garbled = False
        self._pipe_last = 0.0
        self._timer = 0
        self._timer_at = float("inf")
        self.protocol.dispatcher.start(self.loop.now)
        self.turn()

    # -- clients

    def accept(self, wire: Wire) -> None:
        """The kernel accepted; we hear of it when we run."""
        self._count += 1
        conn = Conn(self._count)
        self._conns[wire] = conn
        self._wires[conn.number] = wire
        self.deliver(lambda: self.protocol.opened(conn.number, self.loop.now))

    def got(self, wire: Wire, data: bytes) -> None:
        self.deliver(lambda: self._lines(wire, data))

    def _lines(self, wire: Wire, data: bytes) -> None:
        conn = self._conns.get(wire)
        if conn is not None:
            lines = deque(conn.reader.feed(data))
            while self.protocol.work(conn.number, lines, self.loop.now):
                self.turn()
            self.turn()

    def hung_up(self, wire: Wire) -> None:
        self.deliver(lambda: self._eof(wire))

    def _eof(self, wire: Wire) -> None:
        conn = self._conns.pop(wire, None)
        if conn is not None:
            self.protocol.half_closed(conn.number)
            self.protocol.closed(conn.number, self.loop.now)
            wire.close(self)
            self.turn()

    # -- the engine

    def pipe(self, engine: Engine, data: bytes) -> None:
        """Bytes of the engine, in order."""
        self._piped(0.0005, lambda: self._frames(engine, data))

    def _piped(self, delay: float, step: object) -> None:
        when = max(self.loop.now + delay, self._pipe_last)
        self._pipe_last = when
        self.after(when - self.loop.now, step)  # type: ignore[arg-type]

    def _frames(self, engine: Engine, data: bytes) -> None:
        if self.engine is not engine or self._garbled:
            return
        try:
            frames = self._decoder.feed(data)
        except FrameError as exc:
            self._garbled = True
            self.protocol.dispatcher.garbled(str(exc), self.loop.now)
        else:
            for frame in frames:
                self.protocol.dispatcher.frame(frame, self.loop.now)
        self.turn()

    def reaped(self, engine: Engine, how: str) -> None:
        """The engine ended; we hear of it after its last bytes."""
        self._piped(0.001, lambda: self._exited(engine, how))

    def _exited(self, engine: Engine, how: str) -> None:
        if self.engine is engine:
            self.engine = None
            if self.leaving:
                self.world.broker_gone(self)
                return
            self.protocol.dispatcher.exited(self.loop.now, how, *journal.parse(self.world.disk.journal))
            self.turn()

    def _spawn(self) -> None:
        dispatcher, now = self.protocol.dispatcher, self.loop.now
        if self.world.orphan() is not None:
            dispatcher.lock_busy(now, "pid of an orphan")
            return
        if not dispatcher.settled:
            dispatcher.journal(*journal.parse(self.world.disk.journal), now, float("-inf"))
        if self.world.rng.random() < self.world.faults.unstartable:
            dispatcher.unstartable(now, "no memory for a process", "", permanent=False)
            return
        self._decoder, self._garbled = FrameDecoder(), False
        self.engine = self.world.new_engine(self)
        dispatcher.spawned(now, self.engine.pid)

    def _control(self, action: EngineAction) -> None:
        if action == EngineAction.SPAWN:
            self._spawn()
        elif action == EngineAction.KILL_ORPHAN:
            orphan = self.world.orphan()
            if orphan is not None:
                orphan.die("signal 9")
        elif self.engine is not None and action == EngineAction.TERMINATE:
            self.engine.term()
        elif self.engine is not None:
            self.engine.die("signal 9")

    # -- effects and time

    def turn(self) -> None:
        """As broker/app.py does."""
        protocol = self.protocol
        protocol.settle(self.loop.now)
        while batch := protocol.take():
            for effect in batch:
                self._carry_out(effect)
            protocol.settle(self.loop.now)
        self._book()

    def _carry_out(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Send):
            self._send(effect.conn, effect.data)
        elif isinstance(effect, fx.SendWelcome):
            self._send(effect.conn, rpc.result_line(effect.id, effect.welcome))
        elif isinstance(effect, fx.ConfirmLease):
            self._confirm_lease()
        elif isinstance(effect, fx.ToEngine):
            engine = self.engine
            if engine is not None:
                engine.after(0.0005, lambda: engine.feed(effect.data))
        elif isinstance(effect, fx.ControlEngine):
            self._control(effect.action)
        elif isinstance(effect, fx.Close):
            self._close(effect.conn)
        elif isinstance(effect, fx.SaveAnswers):
            self.world.disk.answers = effect.data
        elif isinstance(effect, fx.Retire):
            self.listening = False
        elif isinstance(effect, fx.Quit):
            self._leave()

    def _send(self, number: int, data: bytes) -> None:
        wire = self._wires.get(number)
        if wire is not None and self.world.rng.random() >= self.world.faults.mute:
            wire.send(self, data)

    def _confirm_lease(self) -> None:
        """At once on the palace's own kernel; elsewhere it takes a sync."""
        if self.world.foreign:
            self.after(self.world.rng.random() * SYNC_S, self._lease_confirmed)
        else:
            self.protocol.dispatcher.lease_confirmed(self.loop.now)

    def _lease_confirmed(self) -> None:
        self.protocol.dispatcher.lease_confirmed(self.loop.now)
        self.turn()

    def _close(self, number: int) -> None:
        wire = self._wires.pop(number, None)
        if wire is not None:
            wire.close(self)
            if self._conns.pop(wire, None) is not None:
                self.protocol.closed(number, self.loop.now)

    def _leave(self) -> None:
        self.leaving = True
        self.listening = False
        for number in list(self._wires):
            self._close(number)
        engine = self.engine
        if engine is None:
            self.world.broker_gone(self)
            return
        engine.after(0.0005, engine.eof)
        self.after(LEAVES_S, lambda: engine.die("signal 9"))

    def _book(self) -> None:
        at = self.protocol.next_deadline()
        if at is None or self._timer_at <= at or not self.alive:
            return
        self._timer_at = at
        self._timer += 1
        mine = self._timer
        self.after(at - self.loop.now, lambda: self._tick(mine))

    def _tick(self, mine: int) -> None:
        if mine == self._timer and not self.leaving:
            self._timer_at = float("inf")
            self.protocol.tick(self.loop.now)
            self.turn()

    # -- the end

    def kill(self) -> None:
        """kill -9: what was written still arrives, the engine sees the end of its pipe."""
        self.alive = self.listening = False
        for wire in self._wires.values():
            wire.close(self)
        if self.engine is not None:
            engine = self.engine
            engine.forget_broker()
            engine.after(0.0005, engine.eof)
        self.world.broker_gone(self)
