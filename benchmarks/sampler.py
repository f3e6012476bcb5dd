"""Who has a palace open, sampled from /proc by a process of its own; its first line of stdin: [root, seconds, mark].

Every sample looks at all processes with the mark in their environment (their HOME), every 50th at all there are.
Ends with its stdin and prints one JSON object: samples, most (owners at once), shared (samples with more than
one), owners (pid: command line), worst (pids at the worst sample), seconds.
"""

from __future__ import annotations

import json
import os
import select
import time

SUFFIXES = (".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".sqlite3-journal", ".bin")
FULL_EVERY = 50


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it ended meanwhile
        return b""


def holds(pid: str, prefix: str) -> bool:
    """Whether it has a store below `prefix` open."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith(prefix) and target.endswith(SUFFIXES):
            return True
    return False


class Sampler:
    """See the module."""

    def __init__(self, root: str, mark: str) -> None:
        self.prefix = os.path.realpath(root) + os.sep
        self.mark = mark.encode()
        self.samples = self.shared = self.most = 0
        self.worst: list[str] = []
        self.owners: dict[str, str] = {}
        self._ours: dict[str, bool] = {}
        self._strange: set[str] = set()

    def sample(self) -> None:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
        known = self._ours
        self._ours = {pid: known.get(pid) or self._is_ours(pid) for pid in pids if pid not in self._strange}
        look = pids if self.samples % FULL_EVERY == 0 else [pid for pid, ours in self._ours.items() if ours]
        found = [pid for pid in look if holds(pid, self.prefix)]
        if len(found) > 1:  # read one after the other: make sure that they hold it at one and the same time
            found = [pid for pid in found if holds(pid, self.prefix)]
        self.samples += 1
        self.shared += len(found) > 1
        if len(found) > self.most:
            self.most, self.worst = len(found), found
        for pid in found:
            if pid not in self.owners:
                self.owners[pid] = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace")[:160]

    def _is_ours(self, pid: str) -> bool:
        environ = read(f"/proc/{pid}/environ")
        if environ and self.mark not in environ and len(self._strange) < 100_000:
            self._strange.add(pid)  # an empty one belongs to a kernel thread, or to a process amid exec
        return self.mark in environ


def main() -> None:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    root, interval, mark = json.loads(line)
    sampler = Sampler(root, mark)
    begun = time.monotonic()
    while not select.select([0], [], [], interval)[0]:
        sampler.sample()
    result = {
        "samples": sampler.samples,
        "most": sampler.most,
        "shared": sampler.shared,
        "owners": sampler.owners,
        "worst": sampler.worst,
        "seconds": round(time.monotonic() - begun, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
