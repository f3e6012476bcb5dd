"""Choose where to listen: the address by which others reach this container, and never more than was asked for."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from ..errors import DevboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ANY = "any"
# Addresses reserved for documentation (RFC 5737, RFC 3849): in no network, so the route to them is the default route.
_FAR = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))
_BIND = "studio-expose --bind ADDRESS"


def choose(wanted: str, outward: str, interfaces: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the addresses to listen on: at least one, none of them a wildcard or loopback.

    Args:
        wanted: "" for the outward address, "any", an address, or the name of an interface.
        outward: the address of the default route; empty if there is none.
        interfaces: name -> addresses, of those that are up.

    Raises:
        DevboxError: no address fits, several do, or the one given would expose nothing or everything.
    """
    usable = {name: [a for a in addresses if _reachable(a)] for name, addresses in interfaces.items()}
    everything = [address for addresses in usable.values() for address in addresses]
    if wanted == ANY:
        return everything or _none_at_all()
    if not wanted:
        return [_checked(outward) if outward else _only(everything)]
    if wanted in interfaces:
        return _of_interface(wanted, usable[wanted])
    return [_checked(wanted, everything)]


def _reachable(address: str) -> bool:
    """Whether others can reach it without naming an interface."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def _only(everything: list[str]) -> str:
    if not everything:
        _none_at_all()
    if len(everything) > 1:
        raise DevboxError(f"there is no default route, and several addresses: {', '.join(everything)}.", hint=_BIND)
    return everything[0]


def _of_interface(name: str, addresses: list[str]) -> list[str]:
    if not addresses:
        raise DevboxError(f"interface {name} has no address that others could reach.", hint=_BIND)
    return sorted(addresses, key=lambda address: ipaddress.ip_address(address).version)[:1]


def _checked(text: str, known: Iterable[str] = ()) -> str:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        raise DevboxError(
            f"{text} is neither an address nor an interface that is up here; addresses: {', '.join(known) or 'none'}.",
            hint=_BIND,
        ) from None
    if parsed.is_unspecified:
        raise DevboxError(f"{text} means every address that exists now or later.", hint="--bind any, for those of now")
    if parsed.is_loopback:
        raise DevboxError(
            f"{text} is loopback, where Studio listens already: nothing outside could reach it.",
            hint=f"give the container a network, or {_BIND}",
        )
    return text


def _none_at_all() -> list[str]:
    raise DevboxError(
        "this container has no address but loopback: nothing outside can reach it.",
        hint="start it with a network (not --network none); with network_mode host you don't need studio-expose",
    )


# --- the addresses of this machine


def outward_address() -> str:
    """The source address of packets on the default route, or "". Nothing is sent."""
    for family, far in _FAR:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asking:
                asking.connect((far, 9))  # on a datagram socket, this only looks up the route
                return str(asking.getsockname()[0])
        except OSError:  # no route in this family, or no such family here
            continue
    return ""


def interfaces() -> dict[str, list[str]]:
    """Map each interface that is up to its IPv4 and IPv6 addresses."""
    import psutil

    up = {name for name, facts in psutil.net_if_stats().items() if facts.isup}
    return {
        name: [a.address.partition("%")[0] for a in found if a.family in (socket.AF_INET, socket.AF_INET6)]
        for name, found in psutil.net_if_addrs().items()
        if name in up
    }
