"""What Linux tells about processes: who carries a mark, who has a palace open, how much memory it takes."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.background import Background

T = TypeVar("T")
PATIENCE_S = 30.0  # a busy machine takes several times as long as a free one; waiting costs nothing where it is quick
STORE_SUFFIXES = (".sqlite3", ".sqlite3-wal", ".sqlite3-journal", ".bin")


def eventually(fn: Callable[[], T | None], timeout: float = PATIENCE_S, what: str = "") -> T:
    """Call `fn` until it returns something true, and return that. AssertionError after `timeout` seconds.

    Whatever another process or thread does by itself - end, appear, leave a list, count - is waited for with this: a
    single look sees it too early on a busy machine. Name a `timeout` only where the time is what the test is about.

    An AssertionError or OSError out of `fn` counts as "not yet"; the last one becomes the cause.
    """
    end = time.monotonic() + timeout
    pause = 0.005
    last: Exception | None = None
    while True:
        try:
            if value := fn():
                return value
        except (AssertionError, OSError) as exc:
            last = exc
        if time.monotonic() >= end:
            raise AssertionError(f"not within {timeout:g} s: {what or fn}") from last
        time.sleep(pause)  # polls a state that sends no event; bounded by the deadline above
        pause = min(pause * 1.5, 0.1)


def fetch(request: str | urllib.request.Request, timeout: float = 20.0) -> bytes:
    """The body of an answer over HTTP. HTTPError for a refusal; its connection is closed, unlike that of urlopen's."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as exc:
        exc.close()
        raise
    return body


def pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def environ_of(pid: int) -> bytes:
    """Its environment at exec; empty for a zombie, a kernel thread, or another user's process."""
    return _read(pid, "environ")


def cmdline_of(pid: int) -> list[str]:
    return [os.fsdecode(word) for word in _read(pid, "cmdline").split(b"\0") if word]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def state_of(pid: int) -> str:
    """The letter of /proc/pid/stat: R, S, D, T, Z; empty when there is no such process."""
    stat = _read(pid, "stat")
    return chr(stat[stat.rindex(b")") + 2]) if stat else ""


def parent_of(pid: int) -> int:
    stat = _read(pid, "stat")
    return int(stat[stat.rindex(b")") + 2 :].split()[1]) if stat else 0


def is_running(pid: int) -> bool:
    """Whether it exists and is no zombie."""
    return state_of(pid) not in {"", "Z", "X"}


def marked(mark: str) -> list[int]:
    """Pids of all running processes with `mark` in their environment or command line, but this one."""
    needle = mark.encode()
    return [
        pid
        for pid in pids()
        if pid != os.getpid() and is_running(pid) and (needle in environ_of(pid) or needle in _read(pid, "cmdline"))
    ]


def children_of(pid: int) -> list[int]:
    return [child for child in pids() if is_running(child) and parent_of(child) == pid]


def running_module(module: str, among: Iterable[int]) -> list[int]:
    """Those of the pids that run `python -m module`.

    A program that such a process is about to start looks like it from fork to exec: it is not counted.
    """
    found = [pid for pid in among if module in cmdline_of(pid)]
    return [pid for pid in found if parent_of(pid) not in found]


def describe(pid: int) -> str:
    return f"{pid} [{state_of(pid)}] {' '.join(cmdline_of(pid))[:200]}"


def memory_kb(pid: int) -> dict[str, int]:
    """{"rss": .., "pss": .., "private": ..} in KiB; zeros once it has ended."""
    rows = {}
    for line in _read(pid, "smaps_rollup").decode().splitlines():
        name, _, rest = line.partition(":")
        if rest.strip().endswith("kB"):
            rows[name] = int(rest.split()[0])
    private = rows.get("Private_Clean", 0) + rows.get("Private_Dirty", 0)
    return {"rss": rows.get("Rss", 0), "pss": rows.get("Pss", 0), "private": private}


def _descriptors(pid: int) -> dict[str, str]:
    """What each descriptor of a process leads to, by number."""
    folder = f"/proc/{pid}/fd"
    found = {}
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    for name in names:
        with contextlib.suppress(OSError):  # closed meanwhile
            found[name] = os.readlink(f"{folder}/{name}")
    return found


def open_files(pid: int) -> list[str]:
    return list(_descriptors(pid).values())


def own_descriptors() -> set[str]:
    """This process's descriptors, each with what it leads to: to compare before and after."""
    return {f"{fd} {target}" for fd, target in _descriptors(os.getpid()).items()}


def own_children() -> set[int]:
    """Pids of this process's children, those included that have ended and were not waited for."""
    return {pid for pid in pids() if parent_of(pid) == os.getpid()}


def owners(root: str | Path) -> set[int]:
    """Pids that have a store (SQLite file or vector index) below `root` open right now.

    By device and inode number, not by path: a process in a container knows the file by another name, and the daemon
    that opens it for a virtual machine by yet another.
    """
    stores = _stores(root)
    opened = {pid: {_opened(pid, fd) for fd in _store_fds(pid)} for pid in pids()}
    # Again: a journal comes and goes, and its number may have become that of a file somewhere else meanwhile.
    stores &= _stores(root)
    return {pid for pid, files in opened.items() if files & stores}


def _stores(root: str | Path) -> set[tuple[int, int] | None]:
    stores: set[tuple[int, int] | None] = set()
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(STORE_SUFFIXES):
                with contextlib.suppress(OSError):
                    info = os.stat(os.path.join(folder, name))
                    stores.add((info.st_dev, info.st_ino))
    return stores


def _store_fds(pid: int) -> list[str]:
    """Descriptors of a process that are called like a store."""
    return [fd for fd, target in _descriptors(pid).items() if target.endswith(STORE_SUFFIXES)]


def _opened(pid: int, fd: str) -> tuple[int, int] | None:
    """Which file a descriptor opens; None for one that only names a file (O_PATH) and reads nothing of it.

    Nor does a broker's that can't write count: a container's broker, which is no engine, opens the files of its own
    engine for the instant of an fsync (lease/files.flush_store).
    """
    try:
        info = os.stat(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return None
    words = _read(pid, f"fdinfo/{fd}").decode().split()
    flags = int(words[words.index("flags:") + 1], 8) if "flags:" in words else 0
    syncing = flags & os.O_ACCMODE == os.O_RDONLY and "mempalace_broker.broker" in cmdline_of(pid)
    return None if flags & getattr(os, "O_PATH", 0) or syncing else (info.st_dev, info.st_ino)


class OwnerSampler(Background):
    """Samples `owners(root)` in the background while the block runs.

    Attributes:
        most: largest number of owners seen at once. worst: those owners, in words.
        seen: every pid that was ever an owner. samples: how many samples were taken, shared: with more than one owner.
        together: the owners of each of these, as sets of pids.
    """

    def __init__(self, root: str | Path, interval_s: float = 0.05) -> None:
        self._root = root
        self._interval_s = interval_s
        self._stop = threading.Event()
        self.most = 0
        self.worst: list[str] = []
        self.seen: set[int] = set()
        self.samples = 0
        self.shared = 0
        self.together: set[frozenset[int]] = set()

    def run(self) -> None:
        while not self._stop.wait(self._interval_s):
            now = owners(self._root)
            if len(now) > 1:  # read one after the other: make sure that they hold it at one and the same time
                now &= owners(self._root)
            self.samples += 1
            if len(now) > 1:
                self.shared += 1
                self.together.add(frozenset(now))
            self.seen |= now
            if len(now) > self.most:
                self.most, self.worst = len(now), [describe(pid) for pid in now]

    def end(self) -> None:
        self._stop.set()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that is free, and stays free until somebody asks for it by number.

    The kernel gives ports of a range of its own to whoever asks for any, between our look and the bind, too. Brokers
    take theirs from 21000 on.
    """
    for port in random.sample(range(20_000, 21_000), 100):
        with contextlib.suppress(OSError), socket.create_server((address, port)):
            return port
    raise RuntimeError(f"no free port at {address}")


def unix_sockets(prefix: str) -> list[str]:
    """Paths of bound unix sockets that start with `prefix`."""
    rows = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    paths = [row.split(maxsplit=7)[7] for row in rows if len(row.split(maxsplit=7)) == 8]
    return [path for path in paths if path.startswith(prefix)]


def limits_of(pid: int, which: int, new: tuple[int, int] | None = None) -> tuple[int, int]:
    """The soft and hard limit of another process, before `new` is set. Linux only."""
    if sys.platform == "linux":
        return resource.prlimit(pid, which) if new is None else resource.prlimit(pid, which, new)
    else:
        raise NotImplementedError
