"""Where to listen on TCP: from a name to an address of this machine, and a bound socket. Nothing is guessed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import ipaddress
import os
import socket
import struct

from ...settings import TCP_ANY, TCP_DOCKER
from ...system import kernel

BACKLOG = 512
BRIDGES = ("docker0", "cni-podman0", "podman0")  # where containers find their host: Docker, Podman before and since 4
_SIOCGIFADDR = 0x8915 if kernel.LINUX else 0xC0206921
_IF_INET6 = "/proc/net/if_inet6"
_GLOBAL = 0x00
_FIRST_PORT, _PORTS = 21_000, 1_000  # below the ports that the systems hand out by themselves


class NotThere(Exception):
    """It can't be listened on now; that may change by itself. The text says why, `mend` what helps."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


def find_address(name: str) -> str:
    """The address that a checked setting (`config.check_tcp`) stands for.

    Raises:
        NotThere: no interface of that name has one now.
    """
    if name == TCP_ANY:
        return "0.0.0.0"
    if name == TCP_DOCKER:
        return _docker()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    address = interface_address(name)
    if address is None:
        raise NotThere(f"no interface {name} with an address", f"ip addr show {name}; or name another in tcp")
    return address


def _docker() -> str:
    if kernel.MACOS:  # containers live in a virtual machine, whose proxy dials from the Mac itself
        return "127.0.0.1"
    for bridge in BRIDGES:
        address = interface_address(bridge)
        if address is not None:
            return address
    raise NotThere(
        f"none of {', '.join(BRIDGES)} has an address: is the container engine running?",
        "start it, or name in tcp the interface by which containers reach this machine",
    )


def interface_address(name: str) -> str | None:
    """An interface's IPv4 address, else its first global IPv6 address; None where it has neither."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("40s", name.encode()[:15]))
        except OSError:
            return _ipv6_address(name)
    address = socket.inet_ntoa(answer[20:24])
    return None if address == "0.0.0.0" else address


def _ipv6_address(name: str) -> str | None:
    try:
        with open(_IF_INET6, encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:  # no IPv6, or no Linux
        return None
    for row in rows:
        if len(row) == 6 and row[5] == name and int(row[3], 16) == _GLOBAL:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))
    return None


def usual_port(root: str) -> int:
    """The port for this state root, so that clients' configurations stay right from one broker to the next."""
    return _FIRST_PORT + int.from_bytes(hashlib.sha256(os.fsencode(root)).digest()[:4], "big") % _PORTS


def bind_tcp(address: str, ports: list[int]) -> socket.socket:
    """A listening, non-blocking socket at the first of `ports` that is free; port 0 is any.

    Raises:
        NotThere: the address is not (yet) one of this machine, or none of the ports can be had.
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
    raise NotThere(f"cannot listen on {where}: {failure.strerror if failure else 'no port'}", hint) from failure


def _listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a predecessor's connections linger for a minute
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
