"""The engine slot of the dispatcher: whether calls can go to an engine, and what its starts and ends ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import failure_texts as texts
from .effects import ConfirmLease, ControlEngine, Effect, ToEngine
from .parking import Parking
from .scheduler import Limits, Scheduler
from .supervisor import EngineAction, EngineState, Policy, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...protocol.engine_frames import Frame


class EngineSlot:
    """The part of the dispatcher that knows the engine's state.

    Attributes:
        holding: nothing more is sent to the engine. confirming: the lease is being confirmed.
        lending: a command wants the palace for itself: nothing is sent, and no engine started, see lender.py.
    """

    def __init__(self, limits: Limits, policy: Policy, rng: Callable[[], float], effects: list[Effect]) -> None:
        self.limits = limits
        self.scheduler = Scheduler(limits)
        self.supervisor = Supervisor(policy, rng)
        self.parking = Parking(limits.park_s, limits.init_s)
        self.holding = False
        self.lending = False
        self.confirming = False
        self._effects = effects

    # -- what it is like

    @property
    def _open(self) -> bool:
        return self.supervisor.state == EngineState.READY and not self.holding and not self.lending

    @property
    def resting(self) -> bool:
        """Whether nothing is in the engine or about to be sent, and it does nothing by itself: idle, or not there."""
        ready = self.supervisor.state == EngineState.READY and not self.parking.between
        at_rest = (ready or not self.supervisor.alive) and not self.lent
        return not self.scheduler.running and not self.confirming and at_rest

    @property
    def lent(self) -> bool:
        """Whether a command has the palace for itself, or is about to get it."""
        return self.lending or bool(self.supervisor.holder)

    @property
    def holder(self) -> str:
        """The other process that the engine waits for, in words, or ""."""
        return self.parking.holder or self.supervisor.holder

    def why_down(self, now: float) -> str:
        """Why calls can't run at present, with a hint."""
        return texts.engine_down(self.supervisor, now)

    # -- what it wants

    def _do(self, actions: list[EngineAction]) -> None:
        self._effects.extend(map(ControlEngine, actions))

    def _to_engine(self, frame: Frame) -> None:
        self._effects.append(ToEngine(frame.encode()))

    def confirm(self) -> None:
        """Ask for the lease to be confirmed, unless that was asked before."""
        if not self.confirming:
            self.confirming = True
            self._effects.append(ConfirmLease())

    def start(self, now: float) -> None:
        """Request an engine start."""
        self._do(self.supervisor.start(now))

    def wake(self, now: float) -> None:
        """Something needs an engine: see whether one can be had."""
        self._do([] if self.holding or self.lending else self.supervisor.wake(now))

    def take_back(self, now: float) -> None:
        """No command asks for the palace any more: an engine comes as soon as engine.lock is free."""
        self.lending = False
        if not self.holding:
            self.start(now)

    # -- what happens to it

    def lock_busy(self, now: float, holder: str, *, is_engine: bool = True) -> None:
        """The engine of an earlier broker still has engine.lock, or a command that has the palace for itself."""
        self._do(self.supervisor.lock_busy(now, holder, is_engine=is_engine))
        if self.lending:
            self.supervisor.end(now, "", replace=False)  # no start is under way now

    def spawned(self, now: float, pid: int) -> None:
        """The engine process was started."""
        self.supervisor.spawned(now, pid)

    def garbled(self, what: str, now: float) -> None:
        """The engine's pipe carries something that is not a frame: nothing that it says can be trusted."""
        self._do(self.supervisor.end(now, f"the engine's output is garbled: {what}"))
