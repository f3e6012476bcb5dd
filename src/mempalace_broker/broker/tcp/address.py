"""Which address of this machine the setting `tcp` stands for. Nothing is guessed."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

from ...settings import TCP_ANY, TCP_DOCKER
from ...system import kernel

BRIDGES = ("docker0", "cni-podman0", "podman0")  # where containers find their host: Docker, Podman before and since 4
_SIOCGIFADDR = 0x8915 if kernel.LINUX else 0xC0206921
_IF_INET6 = "/proc/net/if_inet6"
_GLOBAL = 0x00


class Unavailable(Exception):
    """An address or port can't be used now; that may change by itself. `hint` says what helps."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


def find_address(name: str) -> str:
    """The address that a checked setting (`settings.check_tcp`) stands for.

    Raises:
        Unavailable: no interface of that name has an address now.
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
        raise Unavailable(f"no interface {name} with an address", f"ip addr show {name}; or name another in tcp")
    return address


def _docker() -> str:
    if kernel.MACOS:  # containers live in a virtual machine, whose proxy dials from the Mac itself
        return "127.0.0.1"
    for bridge in BRIDGES:
        address = interface_address(bridge)
        if address is not None:
            return address
    raise Unavailable(
        f"none of {', '.join(BRIDGES)} has an address: is the container engine running?",
        "start it, or name in tcp the interface by which containers reach this machine",
    )


def interface_address(name: str) -> str | None:
    """An interface's IPv4 address, else its first global IPv6 address; None if it has neither."""
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
    except OSError:  # no IPv6, or not Linux
        return None
    for row in rows:
        if len(row) == 6 and row[5] == name and int(row[3], 16) == _GLOBAL:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))
    return None
