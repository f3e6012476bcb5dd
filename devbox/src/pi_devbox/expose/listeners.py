"""The sockets that studio-expose listens on. They follow the container: an address can go, and another one come."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from ..errors import DevboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACKLOG = 512


class Listeners:
    """One listening socket for each address.

    Attributes:
        sockets: by address, not blocking.
    """

    def __init__(self, choose: Callable[[], Sequence[str]], port: int, studio: int, say: Callable[[str], None]) -> None:
        """Listen on `port` of the addresses that `choose` returns; `studio` is the port behind. `say` prints changes.

        Raises:
            DevboxError: there is no such address, or its port can't be had.
        """
        self.sockets: dict[str, socket.socket] = {}
        self._choose = choose
        self._port = port
        self._studio = studio
        self._say = say
        self._missing = ""  # why there is no address at present
        self._open()

    def follow(self) -> bool:
        """Replace the sockets whose address is gone; return whether there are other sockets now."""
        before = list(self.sockets.values())
        lost = [address for address in self.sockets if not is_here(address)]
        for address in lost:
            self.sockets.pop(address).close()
            self._say(f"{address} is no longer an address of this container.")
        if lost or self._missing:
            try:
                self._open()
                self._missing = ""
            except DevboxError as exc:
                if exc.message != self._missing:
                    self._missing = exc.message
                    self._say(f"{exc.message} Waiting until that changes.")
        return list(self.sockets.values()) != before

    def close(self) -> None:
        """Close all sockets."""
        for sock in self.sockets.values():
            sock.close()

    def _open(self) -> None:
        for address in self._choose():
            if address not in self.sockets:
                self.sockets[address] = sock = listen(address, self._port)
                where = f"{shown(address)}:{sock.getsockname()[1]}"
                self._say(f"relaying {where} -> 127.0.0.1:{self._studio} [Ctrl-C to stop]")


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        DevboxError: the port is taken or not allowed, or the address is not one of this machine.
    """
    try:
        sock = socket.create_server((address, port), family=_family(address), backlog=BACKLOG)
    except OSError as exc:
        raise _no_listener(f"{shown(address)}:{port}", port, exc) from exc
    sock.setblocking(False)
    return sock


def is_here(address: str) -> bool:
    """Whether this machine has the address now."""
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError as exc:
        return exc.errno != errno.EADDRNOTAVAIL
    return True


def shown(address: str) -> str:
    """Format an address to stand before a port."""
    return f"[{address}]" if ":" in address else address


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _no_listener(where: str, port: int, exc: OSError) -> DevboxError:
    if exc.errno == errno.EADDRINUSE:
        return DevboxError(
            f"{where} is taken: by another studio-expose, or by Studio itself (then you don't need this).",
            hint=f"see which with `ss -ltnp 'sport = :{port}'`, or choose another with --listen-port",
        )
    if exc.errno == errno.EACCES:
        return DevboxError(f"not allowed to listen on {where}.", hint="choose a --listen-port above 1023")
    if exc.errno == errno.EADDRNOTAVAIL:
        return DevboxError(f"{where} is not an address of this container.", hint="see `ip addr` for those it has")
    return DevboxError(f"can't listen on {where}: {exc.strerror or exc}.", hint="try another --bind or --listen-port")
