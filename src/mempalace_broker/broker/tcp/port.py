"""How the port of the TCP listener is chosen: the first free one of

    1. the setting `tcp_port`, and no other if it is set
    2. the port of the last broker, from its record
    3. the usual port of this state root, so that clients' configurations stay right from one broker to the next
    4. any port that the system hands out

The record says which one it became.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket

from ...protocol.record import DiscoveryRecord
from ...settings import MAX_PORT
from ...system.record_file import RecordFile
from .address import Unavailable

BACKLOG = 512
_FIRST_PORT, _PORTS = 21_000, 1_000  # below the ports that the systems hand out by themselves


def candidate_ports(setting: int, last: int, root: str) -> list[int]:
    """The ports to try, in order; 0 is any. `setting`: 0 = the broker chooses. `last`: of the last broker, or 0."""
    return [setting] if setting else [*filter(None, [last]), usual_port(root), 0]


def usual_port(root: str) -> int:
    """The port that this state root gets where it can."""
    return _FIRST_PORT + int.from_bytes(hashlib.sha256(os.fsencode(root)).digest()[:4], "big") % _PORTS


def bind_tcp(address: str, ports: list[int]) -> socket.socket:
    """A listening, non-blocking socket at the first of `ports` that is free; port 0 is any.

    Raises:
        Unavailable: the address is not (yet) one of this machine, or none of the ports can be had.
    """
    hint = "name another tcp_port, or an address of this machine in tcp"
    failure: OSError | None = None
    for port in ports:
        try:
            return _listen(address, port)
        except OSError as exc:
            failure = exc
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    where = f"{address} port {port}" if port else address
    raise Unavailable(f"cannot listen on {where}: {failure.strerror if failure else 'no port'}", hint) from failure


def _listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last broker linger for a minute
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def endpoint_of(sock: socket.socket) -> str:
    """ "tcp://address:port" of a bound socket."""
    address, port = sock.getsockname()[:2]
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def last_port(record_path: str) -> int:
    """The port of the last broker if its record is still there, else 0."""
    last = RecordFile(record_path).read()
    return next(filter(None, map(_port_of, last.endpoints)), 0) if isinstance(last, DiscoveryRecord) else 0


def _port_of(endpoint: str) -> int:
    kind, _, place = endpoint.partition("://")
    port = place.rpartition(":")[2]
    return int(port) if kind == "tcp" and port.isascii() and port.isdecimal() and int(port) <= MAX_PORT else 0
