"""Tells whose program is at the other end of a connection to 127.0.0.1, where the system shows that: on Linux."""

from __future__ import annotations

import os
import socket
import sys
from functools import cached_property

_TABLES = {"/proc/net/tcp": b"", "/proc/net/tcp6": bytes(10) + b"\xff\xff"}  # and what precedes an IPv4 address there
_LOCAL, _REMOTE, _STATE, _USER, _INODE = 1, 2, 3, 7, 9  # their columns
_TIME_WAIT = "06"  # the connection is over, and the kernel has forgotten the user
_CLOSED = "0"  # the inode of a socket that no program has open any more
_ROOT = 0


class LoopbackPeer:
    """The other end of a connection.

    Args:
        address: its address and port, as `getpeername` returns them; None where the system no longer knows them.
        own: those of our end, as `getsockname` returns them.
    """

    def __init__(self, address: tuple[str, int] | None, own: tuple[str, int] | None) -> None:
        self._ends = (address, own)

    @cached_property
    def is_of_another_user(self) -> bool:
        """Whether it is a program of another user than ours, and not of root; False if nothing tells.

        The system's tables of all connections are read for the first answer, which takes it milliseconds.
        """
        local, remote = self._ends
        uid = None if local is None or remote is None else _user_of(local, remote)
        return uid is not None and uid not in (os.geteuid(), _ROOT)


def _user_of(local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """The user whose socket has these two ends, half-closed or not; it may be one for IPv6. None if nothing tells."""
    for path, prefix in _TABLES.items():
        try:
            ends = [_end(prefix, *local), _end(prefix, *remote)]
            with open(path, encoding="ascii") as table:
                for line in table:
                    row = line.split()
                    if row[_LOCAL:_STATE] == ends and row[_STATE] != _TIME_WAIT and row[_INODE] != _CLOSED:
                        return int(row[_USER])
        except (OSError, ValueError, IndexError):
            continue
    return None


def _end(prefix: bytes, host: str, port: int) -> str:
    """An address and a port as the kernel writes them: each four bytes of the address in the machine's byte order."""
    address = prefix + socket.inet_aton(host)
    words = (int.from_bytes(address[at : at + 4], sys.byteorder) for at in range(0, len(address), 4))
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
