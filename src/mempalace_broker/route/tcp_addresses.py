"""From the name in a TCP endpoint to addresses, without blocking, and the names that a container has for its host.

The system's resolver can only block, so a thread asks it: a thread costs nothing to start where a process would cost
20 ms, and one that hangs in a dead resolver is left behind without harm. Imported late, where TCP is used; inside the
shim's import budget all the same.
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, AI_NUMERICHOST, IPPROTO_TCP, SOCK_STREAM, gaierror, getaddrinfo

from .endpoint import TCP, Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Address = tuple[int, Any]  # family, and what connect() takes

DOCKER_HOST = "host.docker.internal"
PODMAN_HOST = "host.containers.internal"
HOSTS_FILE = "/etc/hosts"
_IN_DOCKER = "/.dockerenv"
_MAX_HOSTS = 1 << 20  # bytes


class Lookup:
    """One look-up, in its own thread. `result`: None until it ends; then addresses, or the resolver's words."""

    def __init__(self, endpoint: Endpoint) -> None:
        import _thread

        self.result: list[Address] | str | None = None
        self.fd, self._end = os.pipe()
        _thread.start_new_thread(self._run, (endpoint.host, endpoint.port, self._end))

    def _run(self, host: str, port: int, end: int) -> None:
        """In the thread. It owns `end`, and closes it to wake the other side."""
        try:
            self.result = resolve(host, port)
        except (OSError, UnicodeError) as exc:
            self.result = getattr(exc, "strerror", None) or str(exc)
        finally:
            os.close(end)

    def close(self) -> None:
        """Stop waiting. A thread that still hangs closes its end when the resolver lets it go."""
        os.close(self.fd)


def resolve(host: str, port: int, flags: int = 0) -> list[Address]:
    """The addresses of a host, in the system's order. Blocks, unless `flags` forbid it.

    Raises:
        OSError: there are none. UnicodeError: it can't be a name.
    """
    name = host.encode() if host.isascii() else host  # text would go through the slow import of a codec
    found = getaddrinfo(name, port, 0, SOCK_STREAM, IPPROTO_TCP, flags)
    return [(entry[0], entry[4]) for entry in found if entry[0] in (AF_INET, AF_INET6)]


def numeric(endpoint: Endpoint) -> list[Address] | None:
    """The address that an endpoint has instead of a name, as a list of one; None where it has a name."""
    try:
        return resolve(endpoint.host, endpoint.port, AI_NUMERICHOST)
    except (gaierror, UnicodeError):
        return None


def candidates(endpoint: Endpoint, *, hosts_file: str = HOSTS_FILE) -> list[Endpoint]:
    """Where a container may find the broker whose record names `endpoint`, best first.

    First an address of the broker's machine that other machines can use, then the names by which container engines
    call their host, where /etc/hosts has them or the engine's own resolver surely answers.
    """
    found = [endpoint] if not (_is_everywhere(endpoint) or _is_loopback(endpoint)) else []
    known = _names(hosts_file)
    names = [n for n in (DOCKER_HOST, PODMAN_HOST) if n in known or (n == DOCKER_HOST and os.path.exists(_IN_DOCKER))]
    found += [Endpoint(TCP, host=name, port=endpoint.port) for name in names]
    return found + ([endpoint] if _is_loopback(endpoint) else [])


def _is_everywhere(endpoint: Endpoint) -> bool:
    return endpoint.host in ("0.0.0.0", "::", "")


def _is_loopback(endpoint: Endpoint) -> bool:
    """There it is the broker's machine; here it is this container, unless the two share a network."""
    return endpoint.host.startswith("127.") or endpoint.host in ("::1", "localhost")


def _names(hosts_file: str) -> set[str]:
    """The names in the system's table of hosts; none where it can't be read."""
    try:
        with open(hosts_file, "rb") as file:
            data = file.read(_MAX_HOSTS)
    except OSError:
        return set()
    words = (line.partition("#")[0].split() for line in data.decode("utf-8", "replace").splitlines())
    return {name for line in words for name in line[1:]}
