"""Runs the protocol: what clients do and what time it is go in, and its effects are carried out in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from .admission import MOST_ASKING, MOST_HELD, MOST_UNREAD, Admission, Client, largest_of
from .guest_paths import new_nonce
from .log_lines import about
from .machine.effects import ConfirmLease, Send, ToEngine
from .turns import Turns

if TYPE_CHECKING:
    import logging
    from collections import deque
    from collections.abc import Callable

    from ..protocol.framing import TooLong
    from ..system.clock import Clock
    from ..system.unix_socket import PeerProcess
    from .machine.effects import Effect
    from .machine.protocol import BrokerProtocol
    from .machine.session import Origin
    from .warnings import Warnings


class Conn(Client, Protocol):
    """A `connection`, which knows this class and hands itself to it.

    Attributes:
        number: names the client in the protocol. via: "unix", "http" or "tcp ADDRESS". peer: its process.
        proof: the name by which it proves its folders, see guest_paths.
    """

    number: int
    via: str
    peer: PeerProcess
    proof: str

    @property
    def unfinished(self) -> int:
        """Bytes that were read and not yet acted upon."""

    @property
    def unread(self) -> int:
        """Bytes that the client has not read yet."""

    def send(self, data: bytes) -> None:
        """Queue bytes for the client."""

    def refuse(self, text: str) -> None:
        """Tell the client why, and close it."""

    def close(self) -> None:
        """Close it once everything is sent."""


class ProtocolRunner:
    """The loop around one BrokerProtocol.

    Args:
        carry_out: does what an effect says; all but Send, which this class does itself.
        after_turn: called when all effects of a turn are carried out.

    Attributes:
        conns: the open connections, by number. stall_s: drop a client that accepts no byte for this long.
        turns: in which those that flood are read.
    """

    def __init__(
        self,
        protocol: BrokerProtocol,
        *,
        carry_out: Callable[[Effect], None],
        after_turn: Callable[[], None],
        stall_s: float,
        clock: Clock,
        log: logging.Logger,
        warnings: Warnings,
    ) -> None:
        self.protocol = protocol
        self.log = log
        self.stall_s = stall_s
        self.turns = Turns()
        self.conns: dict[int, Conn] = {}
        self._admission = Admission(clock, log)
        self._asking: set[Conn] = set()
        self._carry_out = carry_out
        self._after_turn = after_turn
        self._clock = clock
        self._warnings = warnings
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._turning = False

    # -- what clients do

    def refusal(self, who: str) -> str:
        """Why one more connection of `who` is refused, "" if it isn't."""
        return self._admission.refusal(who, self.conns.values())

    def lets_ask(self, conn: Conn) -> bool:
        """Whether a client that was refused may still ask about the broker."""
        if len(self._asking) < MOST_ASKING:
            self._asking.add(conn)
        return conn in self._asking

    def limit_unfinished(self) -> None:
        """Refuse the client with the longest unfinished lines if all of these together take too much memory."""
        largest = largest_of(self.conns.values(), lambda conn: conn.unfinished, MOST_HELD)
        if largest is not None:
            largest.refuse("unfinished lines use too much memory: send shorter lines, or fewer at a time")

    def limit_unread(self) -> None:
        """Drop the client with the most unread answers if all of these together take too much memory."""
        largest = largest_of(self.conns.values(), lambda conn: conn.unread, MOST_UNREAD)
        if largest is not None:
            largest.drop("its unread answers use too much memory")

    def opened(self, conn: Conn, pid: int, origin: Origin, agent: str = "", flow: int = 0) -> None:
        """A client was accepted; `pid` 0 where it is not known, `agent` and `flow` as the protocol has them."""
        self.conns[conn.number] = conn
        conn.opened = self._clock.monotonic()
        self.protocol.opened(conn.number, conn.opened, pid, origin, agent, flow)

    def proof_nonce(self, conn: int) -> str:
        """A new name for a guest to prove its folders with, kept with its connection."""
        found = self.conns.get(conn)
        if found is None:
            return ""
        found.proof = new_nonce(found.peer)
        return found.proof

    def work(self, conn: Conn, lines: deque[bytes | TooLong]) -> bool:
        """Let a client have its share of this turn of the loop; return whether there is more to do for it."""
        more = self.protocol.work(conn.number, lines, self._clock.monotonic())
        self.turn()
        return more

    def eof(self, conn: Conn) -> None:
        """A client sends no more."""
        self.protocol.half_closed(conn.number)
        self.turn()

    def closed(self, conn: Conn) -> None:
        """A client is gone."""
        self._asking.discard(conn)
        if self.conns.pop(conn.number, None) is not None:
            self.protocol.closed(conn.number, self._clock.monotonic())
            self.turn()

    def close(self, conn: int, reason: str) -> None:
        """Close a connection once its bytes are out."""
        if conn in self.conns:
            self.log.debug("closing client %d: %s", conn, reason, extra=about(self.protocol.sessions.get(conn)))
            self.conns[conn].close()

    def send(self, conn: int, data: bytes) -> None:
        """Send whole lines to a client, if it is still there."""
        if conn in self.conns:
            self.conns[conn].send(data)

    # -- effects and time

    def drain(self, reason: str, *, at_once: bool = False) -> None:
        """Tell the protocol to leave."""
        self.protocol.drain(self._clock.monotonic(), reason, at_once=at_once)
        self.turn()

    def turn(self) -> None:
        """Carry out all effects, then find out when time has something to do. Call after every event.

        What an effect brings about within a turn, the same turn carries out.
        """
        if self._turning:
            return
        self._turning = True
        try:
            while True:
                batch = self.protocol.take()
                if not batch:
                    self.protocol.settle(self._clock.monotonic())
                    batch = self.protocol.take()
                    if not batch:
                        break
                self._carry_out_all(batch)
        finally:
            self._turning = False
        self._after_turn()
        self._book_timer()

    def _carry_out_all(self, batch: list[Effect]) -> None:
        lines: dict[int, list[bytes]] = {}  # the answers to one client go out in one write
        for effect in batch:
            if isinstance(effect, Send):
                lines.setdefault(effect.conn, []).append(effect.data)
            else:
                if not isinstance(effect, ConfirmLease | ToEngine):  # no client sees in which order those come
                    self._flush(lines)
                self._try(effect)
        self._flush(lines)

    def _flush(self, lines: dict[int, list[bytes]]) -> None:
        for conn, parts in lines.items():
            self.send(conn, parts[0] if len(parts) == 1 else b"".join(parts))
        lines.clear()

    def _try(self, effect: Effect) -> None:
        try:
            self._carry_out(effect)
        except Exception as exc:
            self.log.error("cannot carry out %s: %r", type(effect).__name__, exc, exc_info=exc)  # it may hold an answer
            self._warnings.internal_error(exc)

    def _book_timer(self) -> None:
        at = self.protocol.next_deadline()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        delay = max(0.0, at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.protocol.tick(self._clock.monotonic())
        self.turn()
