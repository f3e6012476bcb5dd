"""Lends the palace to a command (`mempalace-broker exclusive`), which works on it while there is no engine.

    asked --running calls end--> the engine closes the palace --> and ends --> granted --the asker leaves--> next engine

While it is asked for or granted, nothing more is sent to an engine and none is started. The asker takes engine.lock,
hands it to its command and leaves. From then on that lock alone keeps the engine away: the kernel holds it for as long
as the command or a child of it lives, whatever becomes of this broker and of the asker.

Who asks for a pause (`backup`) gets it once no call runs, and the engine stays: nothing is written until the asker
leaves, at most for PAUSE_S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol import engine_frames as frames
from ...protocol import jsonrpc as rpc
from ...protocol.engine_frames import Frame
from ...protocol.tools import Lane
from .effects import ControlEngine, ToEngine
from .failure_texts import engine_state
from .parking import ParkState
from .supervisor import EngineState

if TYPE_CHECKING:
    from ...protocol.jsonrpc import Message
    from .dispatcher import Dispatcher
    from .effects import Effect

LENT = "lent"  # what `broker/status` calls the state of an engine that is away for a command
TAKE_S = 10.0  # from the grant until the asker has engine.lock
PAUSE_S = 5.0
_LONGEST_WAIT_S = 3600.0
_WHY = "a command wants the palace for itself"


@dataclass(slots=True)
class _Request:
    conn: int
    id: Any
    wait_s: float
    deadline: float
    pause: bool
    granted: bool = False


class Lender:
    """The requests for the palace of all connections. `settle` is called after every event."""

    def __init__(self, dispatcher: Dispatcher, effects: list[Effect]) -> None:
        self._dispatcher = dispatcher
        self._effects = effects
        self._requests: list[_Request] = []

    def ask(self, conn: int, message: Message, now: float) -> None:
        """Take a `broker/exclusive`; its `wait_s` is how long the asker waits, its `pause` whether the engine stays."""
        asked = message.params.get("wait_s")
        wait_s = float(min(asked, _LONGEST_WAIT_S)) if isinstance(asked, int | float) and asked > 0 else 0.0
        pause = message.params.get("pause") is True
        self._requests.append(_Request(conn, message.id, wait_s, now + wait_s, pause))
        self._dispatcher.lending = True
        self._dispatcher.confirm()  # marks the lease as busy: no other kernel may take it for an idle one

    def drop(self, conn: int) -> None:
        """The connection is gone: its asker has the lock, or has given up."""
        self._requests = [asked for asked in self._requests if asked.conn != conn]

    def settle(self, now: float) -> list[tuple[int, bytes]]:
        """Take the next step; return the answers that can be given by now, as (connection, line)."""
        if not self._dispatcher.lending:
            return []
        out = self._expire(now)
        if not self._requests:
            self._dispatcher.take_back(now)
            self._dispatcher.pump()
            return out
        paused = any(asked.pause and asked.granted for asked in self._requests)
        wanted = any(not asked.pause for asked in self._requests)
        if (wanted and not paused) or not self._dispatcher.supervisor.alive:
            self._recall(now)
        return out + self._grant(now)

    def _grant(self, now: float) -> list[tuple[int, bytes]]:
        gone = self._dispatcher.supervisor.state is EngineState.DOWN and not self._dispatcher.confirming
        ready = [asked for asked in self._requests if not asked.granted and (gone or (asked.pause and self._is_still))]
        for asked in ready:
            asked.granted, asked.deadline = True, now + (PAUSE_S if asked.pause else TAKE_S)
        return [(asked.conn, rpc.result_line(asked.id, {"granted": True})) for asked in ready]

    @property
    def _is_still(self) -> bool:
        """Whether an engine is there, and does nothing."""
        dispatcher = self._dispatcher
        busy = self._at_work or dispatcher.confirming or dispatcher.parking.between
        return dispatcher.supervisor.state is EngineState.READY and not busy

    def _expire(self, now: float) -> list[tuple[int, bytes]]:
        late = [asked for asked in self._requests if now >= asked.deadline]
        self._requests = [asked for asked in self._requests if now < asked.deadline]
        return [
            (asked.conn, rpc.error_line(asked.id, errors.NOT_EXECUTED, self._busy(asked, now)))
            for asked in late
            if not asked.granted
        ]

    def _busy(self, asked: _Request, now: float) -> str:
        running = min(self._dispatcher.scheduler.running.values(), key=lambda call: call.started, default=None)
        if running is not None:
            why = f"{running.tool} has been running for {now - running.started:.0f} s"
        else:
            why = engine_state(self._dispatcher.supervisor, now)
        return f"the palace did not get free within {round(asked.wait_s, 1):g} s: {why}"

    def _recall(self, now: float) -> None:
        """Bring the engine to its end, step by step: the palace is closed in order first."""
        supervisor, parking = self._dispatcher.supervisor, self._dispatcher.parking
        if supervisor.state is EngineState.READY:
            if parking.state is ParkState.OPEN and not self._at_work:
                parking.close(now)
                self._effects.append(ToEngine(Frame(frames.PARK).encode()))
            elif parking.state is ParkState.PARKED or parking.holder or parking.overdue(now):
                self._end(now)
        elif supervisor.state not in (EngineState.DOWN, EngineState.LOCKING, EngineState.STARTING, EngineState.WARMING):
            self._end(now)

    @property
    def _at_work(self) -> bool:
        """Whether the engine is in the middle of a call that ends soon. Those that block by design only read: they run
        again on the next engine.
        """
        return any(call.rule.lane is not Lane.WAIT for call in self._dispatcher.scheduler.running.values())

    def _end(self, now: float) -> None:
        self._effects.extend(map(ControlEngine, self._dispatcher.supervisor.end(now, _WHY, replace=False)))

    def next_deadline(self) -> float | None:
        """When `settle` has something to do without another event, or None."""
        closing = self._dispatcher.parking.next_deadline(idle=False) if self._requests else None
        times = [asked.deadline for asked in self._requests]
        return min([*times, *([closing] if closing is not None else [])], default=None)
