"""Which address of this machine the setting `tcp` stands for. Nothing is guessed."""

from __future__ import annotations

import ipaddress
import socket

from ...settings import TCP_ANY, TCP_DOCKER
from ...system import kernel

BRIDGES = ("docker0", "cni-podman0", "podman0")  # where containers find their host: Docker, Podman before and since 4


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
        what = "ifconfig" if kernel.MACOS else "ip addr"
        raise Unavailable(f"no interface {name} with an address", f"name another in tcp, `{what}` lists them")
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
    import psutil  # late: most brokers do not listen on TCP

    families: dict[int, list[str]] = {}
    for found in psutil.net_if_addrs().get(name, []):
        families.setdefault(found.family, []).append(found.address)
    beyond = (text for text in families.get(socket.AF_INET6, []) if "%" not in text and text != "::1")
    return next(iter(families.get(socket.AF_INET, [])), None) or next(beyond, None)
