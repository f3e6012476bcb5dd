"""An endpoint by name, as $MEMPALACE_BROKER and the record have it.

    unix:/path    unix:///path    /path    ~/path
    tcp://host:port               tcp://[::1]:port
    ssh://[user@]host[:port][/state-root]

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import UsageError
from ..system.paths import expand


class EndpointKind(str):
    """How an endpoint is reached; also its scheme."""

    __slots__ = ()


TCP = EndpointKind("tcp")
SSH = EndpointKind("ssh")
UNIX = EndpointKind("unix")

_MAX_SUN_PATH = 107
_MAX_PORT = 65535
_FORMS = "write unix:/path, tcp://host:port or ssh://[user@]host[:port][/state-root]."


class Endpoint:
    """Where a broker is.

    Attributes:
        kind: how it is reached.
        path: of the socket (UNIX); of the state root on that host (SSH), "" for that user's default.
        host: name or address, without brackets; for SSH it may be an alias of ssh's configuration.
        port: 0 where none is named (SSH: ssh's own default). user: "" where none is named.
    """

    __slots__ = ("host", "kind", "path", "port", "user")

    def __init__(self, kind: EndpointKind, *, path: str = "", host: str = "", port: int = 0, user: str = "") -> None:
        self.kind = kind
        self.path = path
        self.host = host
        self.port = port
        self.user = user

    def __str__(self) -> str:
        """As it is written in configurations; `parse` reads it back."""
        if self.kind == UNIX:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.kind}://{user}{host}{port}{_slash(self.path)}"

    def __repr__(self) -> str:
        return f"Endpoint({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse(text: str, home: str) -> Endpoint:
    """Read an endpoint; `home` stands for `~` in a socket's path.

    Raises:
        UsageError: it is of an unknown kind, or no socket can have that name.
    """
    scheme, colon, rest = text.partition(":")
    for kind in (TCP, SSH):
        if colon and scheme == kind:
            if not rest.startswith("//"):
                raise _bad(text, f"not a {kind}:// address", _FORMS)
            return _remote(kind, rest[2:], text)
    if colon and scheme == UNIX:
        path = rest.removeprefix("//") if rest.startswith("///") else rest
    elif "://" in text:
        raise _bad(text, "not a known kind of endpoint", _FORMS)
    else:
        path = text
    path = expand(path, home)
    if not path or path.startswith("//") or "\0" in path or len(os.fsencode(path)) > _MAX_SUN_PATH:
        raise _bad(text, "no usable socket", f"use unix:/path, at most {_MAX_SUN_PATH} bytes.")
    return Endpoint(UNIX, path=path)


def _remote(kind: EndpointKind, rest: str, text: str) -> Endpoint:
    """The part after `tcp://` or `ssh://`."""
    authority, slash, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    host, port = _host_port(place, text)
    if kind == TCP and (not port or user or at or path):
        raise _bad(text, "no host and port", "write tcp://host:port.")
    if not _plain(host) or (at and not _plain(user)):
        raise _bad(text, "no host", _FORMS)
    root = path if path.startswith("~") else slash + path
    return Endpoint(kind, host=host, port=port, user=user, path="" if root == "/" else root)


def _host_port(place: str, text: str) -> tuple[str, int]:
    """ "host", "host:22", "::1", "[::1]" or "[::1]:22" as (host, port or 0)."""
    if place.startswith("["):
        host, bracket, tail = place[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _bad(text, "no address in brackets", _FORMS)
        port = tail[1:]
    else:
        host, colon, port = place.rpartition(":")
        if not colon:
            return place, 0
        if ":" in host:
            raise _bad(text, "ambiguous", "put brackets around an IPv6 address: [::1]:port.")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        raise _bad(text, f"no port 1 to {_MAX_PORT}", _FORMS)
    return host, int(port or 0)


def _plain(word: str) -> bool:
    """Whether a host or user is safe as an argument of ssh: never an option, never more than one word."""
    return (
        bool(word) and not word.startswith("-") and word.isprintable() and not any(c in " '\"\\$`;&|<>()" for c in word)
    )


def _slash(path: str) -> str:
    return path if not path or path.startswith("/") else f"/{path}"


def _bad(text: str, what: str, hint: str) -> UsageError:
    return UsageError(f"endpoint {text!r}: {what}.", hint=hint)
