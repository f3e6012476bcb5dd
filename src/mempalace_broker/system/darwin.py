"""Where macOS differs from Linux without an error. Imported where it runs, and by the tests of this module.

    send       MSG_DONTWAIT is ignored: a send on a blocking socket waits in the kernel. So poll first, and send no more
               than a socket certainly takes that poll calls writable (kernel.SOCKET_ROOM).
    poll       reports nothing of a descriptor watched for no event, or for POLLERR alone: that the other side is gone
               is then never seen. A kqueue reports it (HangupWatch).
    connect    says ECONNREFUSED where the backlog is full, as where nobody listens. The lock that its owner holds tells
               them apart (route/start_under_lock).
    names      are the same in any case and Unicode form, and realpath keeps whichever was given (true_path).
    fsync      reaches the drive and not its platters (sync_volume).

Everything here works with Python 3.9: engines use it. `mp-shim` imports it on macOS.
"""

from __future__ import annotations

import os
import sys

F_GETPATH, MAX_PATH = 50, 1024
_LOOK_AT_NAME = 0x8000  # O_EVTONLY: no permission to read is needed, and no volume is kept from being ejected
STATFS_BYTES = 2168
_MNT_LOCAL = 0x1000
_SYNC_FULL, _SYNC_WAIT = 1, 2
_EVENTS = 4  # read from a kqueue at once


class HangupWatch:
    """Reports that the other side of a pipe, socket or terminal is gone.

    Args:
        fd: stays open as long as this object. writes: we write to it, and whoever reads may leave; else we read.

    Raises:
        OSError: a descriptor of this kind can't be watched, /dev/null for one.
    """

    def __init__(self, fd: int, *, writes: bool) -> None:
        from select import (  # type: ignore[attr-defined, unused-ignore] # Linux has none of these
            KQ_EV_ADD,
            KQ_EV_CLEAR,
            KQ_EV_EOF,
            KQ_FILTER_READ,
            KQ_FILTER_WRITE,
            kevent,
            kqueue,
        )

        self._eof = KQ_EV_EOF
        self._queue = kqueue()
        try:
            # by change, not by level: a pipe with room, or with data that nobody reads yet, must not keep us awake
            change = kevent(fd, KQ_FILTER_WRITE if writes else KQ_FILTER_READ, KQ_EV_ADD | KQ_EV_CLEAR)
            self._queue.control([change], 0)
        except OSError:
            self._queue.close()
            raise

    def fileno(self) -> int:
        """A descriptor that becomes readable when `gone` may have another answer."""
        return int(self._queue.fileno())

    def gone(self, seconds: float = 0.0) -> bool:
        """Whether the other side went since the last call, waiting for any change for that long."""
        return any(event.flags & self._eof for event in self._queue.control(None, _EVENTS, seconds))

    def close(self) -> None:
        """Stop watching."""
        self._queue.close()


def filesystem(path: str) -> tuple[str, bool | None]:
    """The type of the filesystem that holds an existing `path`, and whether it is stored on this machine; ("", None)
    where that can't be told.
    """
    from ctypes import CDLL, create_string_buffer

    found = create_string_buffer(STATFS_BYTES)
    try:
        libc = CDLL(None)
        statfs = getattr(libc, "statfs$INODE64", None) or libc.statfs  # Intel has an older struct under the plain name
        if statfs(os.fsencode(path), found):
            return "", None
    except (OSError, AttributeError, ValueError):
        return "", None
    return read_statfs(found.raw)


def read_statfs(raw: bytes) -> tuple[str, bool | None]:
    """What `filesystem` returns, from the bytes of a `struct statfs` with 64-bit inodes."""
    flags = int.from_bytes(raw[64:68], sys.byteorder)
    name = raw[72:88].split(b"\0")[0].decode("ascii", "replace")
    return (name, bool(flags & _MNT_LOCAL)) if name.replace("-", "").isalnum() and name.isascii() else ("", None)


def sysctl(name: str) -> str:
    """A value of the kernel that is text, "" on any failure."""
    from ctypes import CDLL, byref, c_size_t, create_string_buffer

    value, size = create_string_buffer(256), c_size_t(256)
    try:
        if CDLL(None).sysctlbyname(name.encode(), value, byref(size), None, c_size_t(0)):
            return ""
        return value.value.decode()
    except (OSError, AttributeError, ValueError):
        return ""


def path_of(fd: int) -> str:
    """The path of an open file as the filesystem spells it. Raises OSError."""
    from fcntl import fcntl

    return os.fsdecode(fcntl(fd, F_GETPATH, bytes(MAX_PATH)).split(b"\0")[0])


def true_path(path: str) -> str:
    """A real path as the filesystem spells it; what does not exist stays as it was given."""
    there, rest = path, ""
    while True:
        try:
            fd = os.open(there, _LOOK_AT_NAME | os.O_CLOEXEC)
        except OSError:
            above, name = os.path.split(there)
            if above == there:
                return path
            there, rest = above, os.path.join(name, rest) if rest else name
            continue
        try:
            return os.path.join(path_of(fd), rest) if rest else path_of(fd)
        except OSError:
            return path
        finally:
            os.close(fd)


def sync_volume(path: str) -> None:
    """Have everything of the volume that holds `path` on its platters, past the drive's own cache. Raises OSError."""
    from ctypes import CDLL, get_errno

    number = CDLL(None, use_errno=True).sync_volume_np(os.fsencode(path), _SYNC_FULL | _SYNC_WAIT)
    if number:
        code = get_errno() or abs(number)
        raise OSError(code, os.strerror(code), path)
