"""Tells whose program is at the other end of a connection over 127.0.0.1, where the system shows that: on Linux."""

from __future__ import annotations

import os
import sys

_TABLE = "/proc/net/tcp"
_LOCAL, _REMOTE, _STATE, _USER = 1, 2, 3, 7  # its columns
_ESTABLISHED = "01"  # the kernel forgets the user of a socket that is closed
_ROOT = 0
_LOOPBACK = bytes([127, 0, 0, 1])


def is_of_another_user(peer_port: int, own_port: int) -> bool:
    """Whether a connection comes from a program of another user than ours, and not of root; False if nothing tells.

    Args:
        peer_port, own_port: the connection's two ports.
    """
    uid = _user_of(_address(peer_port), _address(own_port))
    return uid is not None and uid not in (os.geteuid(), _ROOT)


def _address(port: int) -> str:
    """127.0.0.1 and that port, as the kernel writes them: the address in the machine's byte order."""
    return f"{int.from_bytes(_LOOPBACK, sys.byteorder):08X}:{port:04X}"


def _user_of(local: str, remote: str) -> int | None:
    try:
        with open(_TABLE, encoding="ascii") as table:
            for line in table:
                row = line.split()
                if row[_LOCAL : _STATE + 1] == [local, remote, _ESTABLISHED]:
                    return int(row[_USER])
    except (OSError, ValueError, IndexError):
        return None
    return None
