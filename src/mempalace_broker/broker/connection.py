"""One client's socket: bytes to lines and back, bounded so that no client can harm another.

A client that floods gets a slice of each turn of the loop; one that does not read is not read from either; one that
accepts no byte for `client_stall_s` seconds (a setting) is dropped.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING

from ..errors import OVERLOADED
from ..protocol.framing import LineReader
from ..protocol.jsonrpc import error_line
from ..system.unix_socket import PeerProcess, peer_uid
from .admission import ASKING_S, only_asks
from .log_lines import about
from .machine.session import Origin
from .peer import look_at_peer, origin_of
from .unix_listener import allowed

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ..protocol.framing import TooLong
    from .runner import ProtocolRunner

UNIX = "unix"
TCP = "tcp"
HIGH_WATER = 1 << 20
LARGE = 1 << 20  # from here on the bytes of all clients are added up
MOST_BUFFERED = 512 << 20
_BUFFER = memoryview(bytearray(16 << 10))  # of all clients. Read as tiny lines, it takes 2 ms, and 20 times the memory


class Connection(asyncio.BufferedProtocol):
    """The asyncio protocol of one client; `number` names it in the broker's protocol, `peer` is its process;
    `proof` the name by which it proves its folders, see guest_paths.

    Args:
        via: "unix", or "tcp ADDRESS" for a client that has already proved itself.
        early: bytes that were read from it already.
        owner: of our unix socket, see `allowed`.
    """

    def __init__(
        self, runner: ProtocolRunner, number: int, via: str = UNIX, early: bytes = b"", *, owner: int = -1
    ) -> None:
        self._runner = runner
        self._owner = owner
        self.number = number
        self.via = via
        self._early = early
        self.peer = PeerProcess()
        self.proof = ""
        self.transport: asyncio.Transport | None = None
        self._reader = LineReader()
        self._pending: deque[bytes | TooLong] = deque()
        self.who = TCP
        self.opened = 0.0
        self.heard = False
        self.leaving = False
        self._refusal = ""  # there is no room for it; it may only ask about the broker
        self._origin = Origin.GUEST
        self._turn_scheduled = False
        self._full = False
        self._ended = False
        self._closing = False
        self._written = 0
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted; a stranger is refused before a byte is read."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.via == UNIX:
            sock: socket.socket = transport.get_extra_info("socket")
            uid = peer_uid(sock)
            if not allowed(uid, self._owner):
                self._runner.log.warning("refused a connection of uid %d", uid)
                transport.abort()
                return
            self.who = f"uid {uid}"
            self.peer = look_at_peer(sock)
            if uid in (os.geteuid(), 0):  # root's rights are nobody else's
                self._origin = origin_of(self.peer)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._refusal = self._runner.refusal(self.who)
        if not self._refusal:
            self._runner.opened(self, self.peer.pid, self._origin)
        elif self.via == UNIX and self._runner.lets_ask(self):
            asyncio.get_running_loop().call_later(ASKING_S, self.refuse, self._refusal)
        else:
            self.refuse(self._refusal)
            return
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as asyncio calls it
        """Where the transport reads to; `buffer_updated` follows at once."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read."""
        self.data_received(bytes(_BUFFER[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Split what was read into lines; a client that floods gets a slice of each turn of the loop."""
        if self.leaving:
            return
        lines = self._reader.feed(data)
        if self._refusal and not self._may_ask(lines):
            return
        self._pending.extend(lines)
        if self._reader.held > LARGE:
            self._runner.limit_unfinished()
        if lines:
            self.heard = True
            if not self._turn_scheduled and not self._full:
                self._work()

    def _may_ask(self, lines: Sequence[bytes | TooLong]) -> bool:
        """Open a client that there is no room for if it asks about the broker, and refuse it if it wants more."""
        if self._reader.held > LARGE or not only_asks(lines):
            self.refuse(self._refusal)
            return False
        if lines and not self.heard:
            self._runner.opened(self, self.peer.pid, self._origin)
        return True

    @property
    def unfinished(self) -> int:
        """Bytes that were read and not yet acted upon."""
        return self._reader.held + sum(len(line) for line in self._pending if isinstance(line, bytes))

    @property
    def unread(self) -> int:
        """Bytes that the client has not read yet."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def _work(self) -> None:
        """Take the client's share of this turn of the loop, and go on in the next one if there is more."""
        if self._runner.work(self, self._pending):
            self._schedule_turn()
        elif self._ended:
            self._runner.eof(self)
        elif self.transport is not None and not self._full:
            self.transport.resume_reading()

    def _schedule_turn(self) -> None:
        if self.transport is None or self._turn_scheduled or self._full:
            return
        self._turn_scheduled = True
        self.transport.pause_reading()
        self._runner.turns.add_later(self._take_turn)

    def _take_turn(self) -> bool:
        self._turn_scheduled = False
        if self.transport is not None and not self._full:
            self._work()
        return False  # if there is more, it has another turn by now

    def send(self, data: bytes) -> None:
        """Queue bytes for the client."""
        if self.transport is None:
            return
        self._written += len(data)
        self.transport.write(data)
        if self.unread > MOST_BUFFERED:
            self.drop("its unread answers use too much memory")
        elif self.unread > LARGE:
            self._runner.limit_unread()

    def pause_writing(self) -> None:
        """The client does not keep up: stop reading its requests, and watch whether it reads at all."""
        self._full = True
        if self.transport is not None:
            self.transport.pause_reading()
        self._watch(self._accepted())

    def resume_writing(self) -> None:
        """It caught up."""
        self._full = False
        if self._stall is not None and not self._closing:
            self._stall.cancel()
            self._stall = None
        self._schedule_turn()

    def _accepted(self) -> int:
        return self._written - self.unread

    def _watch(self, before: int) -> None:
        self._stall = asyncio.get_running_loop().call_later(self._runner.stall_s, self._stalled, before)

    def _stalled(self, before: int) -> None:
        now = self._accepted()
        if now == before:
            self.drop(f"it accepted no byte for {self._runner.stall_s:g} s")
        else:
            self._watch(now)

    @property
    def _about(self) -> dict[str, str]:
        return about(self._runner.protocol.sessions.get(self.number))

    def drop(self, reason: str) -> None:
        """Drop the connection at once."""
        self.leaving = True
        if self.transport is not None:
            self._runner.log.warning("dropping client %d: %s", self.number, reason, extra=self._about)
            self.transport.abort()

    def refuse(self, text: str) -> None:
        """Tell the client why, and close the connection, unless that is under way."""
        if self.transport is not None and not self.leaving:
            self.leaving = True
            self.transport.write(error_line(None, OVERLOADED, text))
            self.close()

    def close(self) -> None:
        """Close it once everything is sent; a client that does not read is dropped by the stall watch."""
        if self.transport is not None:
            self._pending.clear()
            self._closing = self.leaving = True
            if self._stall is None:
                self._watch(self._accepted())
            self.transport.close()

    def eof_received(self) -> bool:
        """The client sends no more; it still gets its answers, to lines that wait here too."""
        self._ended = True
        lines = self._reader.end()
        if self._refusal and not ((lines or self.heard) and self._may_ask(lines)):
            self.refuse(self._refusal)
            return True
        self._pending.extend(lines)
        if not self._turn_scheduled and not self._full:
            self._work()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, in order or with `exc`."""
        if exc is not None:
            self._runner.log.debug("client %d: %s", self.number, exc, extra=self._about)
        self.transport = None
        self._pending.clear()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._runner.closed(self)
