"""`dial-stdio`: join stdin and stdout to the broker, for clients that have a pipe instead of a socket."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

import click

from .. import __version__
from ..system.hangup import Hangup
from ..system.shared_files import write_all
from .context_options import root_option

if TYPE_CHECKING:
    from _socket import socket as RawSocket

    from ..system.clock import Deadline
    from ..system.paths import Context

START_S = 40.0
GUEST_S = 10.0
_READ = 64 * 1024


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


def join(sock: int, stdin: int, stdout: int) -> None:
    """Copy between the stream socket and the two, until the socket ends or stdout has no reader; closes the socket.

    The end of stdin is passed on as the end of what we send; answers still come. The first byte written is a newline.
    """
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    reader = Hangup(stdout, poller, writes=True)
    for fd in (sock, stdin, stdout):
        os.set_blocking(fd, True)
    with socket.socket(fileno=sock) as broker:
        threading.Thread(target=_send, args=(stdin, broker), daemon=True).start()
        try:
            data = b"\n"
            while data:
                write_all(stdout, data)
                events = poller.poll()
                while not (gone := reader.seen(events)) and sock not in dict(events):
                    events = poller.poll()
                if gone:
                    return
                data = broker.recv(_READ)
        except (BrokenPipeError, ConnectionResetError):
            return  # one side left while the other spoke


def _send(stdin: int, broker: socket.socket) -> None:
    """Body of the thread that sends: everything from stdin, then the end."""
    with contextlib.suppress(OSError):  # one side left; `join` sees the same
        while data := os.read(stdin, _READ):
            broker.sendall(data)
        broker.shutdown(socket.SHUT_WR)
