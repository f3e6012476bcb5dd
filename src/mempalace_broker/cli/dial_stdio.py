"""`dial-stdio`: join stdin and stdout to the broker, for clients that have a pipe instead of a socket."""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING

import click

from .. import __version__
from .context_options import root_option

if TYPE_CHECKING:
    from _socket import socket as RawSocket

    from ..system.clock import Deadline
    from ..system.context import Context

START_S = 40.0
GUEST_S = 10.0
_READ = 64 * 1024
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


@click.command("dial-stdio", short_help="Join stdin and stdout to the broker.")
@root_option
def command_dial_stdio(context: Context) -> int:
    """Join stdin and stdout to the broker, and start one if none runs.

    Containers use it where ssh may not forward sockets (`ssh host mempalace-broker dial-stdio`). It speaks the
    protocol of the broker's socket: lines of JSON. The first line that it writes is empty, so that output of a shell's
    profile does not run into the first answer. It ends when either side does.

    \b
    Example:
      echo '{"jsonrpc":"2.0","id":1,"method":"ping"}' | mempalace-broker dial-stdio

    \b
    Exit codes: 0 either side ended, 69 no broker could be reached or started, 73 its files
    can't be placed, 78 the palace is invalid.
    """
    return dial_stdio(context, guest=False)


def dial_stdio(context: Context, *, guest: bool) -> int:
    """Do it. With `guest` the connection gets the memory of this palace and nothing else, whoever speaks on it.

    Raises:
        BrokerUnavailable: no broker, or one that can't limit the connection so.
    """
    from ..route.attempt import StartPolicy
    from ..route.finder import RouteFinder
    from ..system.clock import Deadline

    started_by = f"mempalace-broker dial-stdio {__version__} pid {os.getpid()}"
    policy = StartPolicy(started_by=started_by, heed_failures=False)  # a person may have fixed the cause
    found = RouteFinder(context, Deadline.after(context.clock, START_S), policy).run()
    if guest:
        lower_rights(found.sock, context.identity.path, Deadline.after(context.clock, GUEST_S))
    join(found.sock.detach(), 0, 1)
    return 0


def lower_rights(sock: RawSocket, palace: str, deadline: Deadline) -> None:
    """Tell the broker that a guest speaks on this connection from now on.

    Raises:
        BrokerUnavailable: it does not confirm that; the socket is closed.
    """
    from ..errors import BrokerUnavailable
    from ..protocol.hello import GUEST
    from ..protocol.jsonrpc import load_object
    from ..route.exchange import exchange

    request = {"jsonrpc": "2.0", "id": GUEST, "method": GUEST, "params": {"palace": palace}}
    try:
        answer = load_object(exchange(sock, json.dumps(request).encode() + b"\n", deadline))
    except OSError:
        answer = {}
    if not isinstance(answer.get("result"), dict):
        sock.close()
        told = answer.get("error")
        why = told.get("message") if isinstance(told, dict) else "no answer"
        raise BrokerUnavailable(
            f"the broker does not serve this key as a guest: {str(why)[:300]}",
            hint="on the broker's machine: `mempalace-broker restart`, then `mempalace-broker doctor`",
        )


class _Direction:
    """One direction: what was read and not yet written."""

    __slots__ = ("_left", "_room", "done", "read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.done = False  # its source ended, and all was written
        self._room = memoryview(bytearray(_READ))
        self._left = self._room[:0]

    @property
    def full(self) -> bool:
        return len(self._left) > 0

    def move(self) -> None:
        """Read what is there and write what fits. OSError: the other side is gone."""
        if not self._left:
            try:
                count = os.readv(self.read_fd, (self._room,))
            except BlockingIOError:
                return
            except ConnectionResetError:
                count = 0
            if not count:
                self.done = True
                return
            self._left = self._room[:count]
        try:
            self._left = self._left[os.write(self.write_fd, self._left) :]
        except BlockingIOError:
            return


def join(sock: int, stdin: int, stdout: int) -> None:
    """Copy between the stream socket and the two, until the socket ends or stdout has no reader; closes the socket.

    The end of stdin is passed on as the end of what we send; answers still come. The first byte written is a newline.
    """
    modes = {fd: os.get_blocking(fd) for fd in (stdin, stdout)}
    for fd in (sock, stdin, stdout):
        os.set_blocking(fd, False)
    there, back = _Direction(stdin, sock), _Direction(sock, stdout)
    try:
        os.write(stdout, b"\n")
        while not back.done:
            _turn(there, back)
    except (BrokenPipeError, ConnectionResetError):
        return  # one side left while the other spoke
    finally:
        for fd, blocking in modes.items():
            os.set_blocking(fd, blocking)
        os.close(sock)


def _turn(there: _Direction, back: _Direction) -> None:
    """Wait until a direction can move, and move it."""
    poller = select.poll()
    masks = {back.read_fd: 0, back.write_fd: 0}
    for lane in (there, back):
        if not lane.done:
            fd, mask = (lane.write_fd, select.POLLOUT) if lane.full else (lane.read_fd, select.POLLIN)
            masks[fd] = masks.get(fd, 0) | mask
    for fd, mask in masks.items():
        poller.register(fd, mask)
    events = dict(poller.poll())
    if events.get(back.write_fd, 0) & _GONE:
        raise BrokenPipeError
    for lane in (back, there):
        if not lane.done and events.keys() & {lane.read_fd, lane.write_fd}:
            lane.move()
    if there.done and there.read_fd >= 0:
        there.read_fd = -1
        _shut(there.write_fd)


def _shut(fd: int) -> None:
    """Tell the other side that no more will come."""
    import socket

    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.shutdown(socket.SHUT_WR)
