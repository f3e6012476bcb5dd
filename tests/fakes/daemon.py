"""A stand-in for the broker daemon: a real process with the real locks, record and socket, and no engine.

    python -m tests.fakes.daemon BEHAVIOUR ROOT PALACE --start-fd N

BEHAVIOUR: serve; lost_race, fail, garbage (report that); die (without a word); mute (never report); flash (report
"ready", serve nothing). Each leaves its pid in ROOT/daemons, so that a test can count and end them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import time

from mempalace_broker.protocol.record import DiscoveryRecord
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.process_ids import this_process
from mempalace_broker.system.record_file import RecordFile
from mempalace_broker.system.spawn import StartReport

PIDS = "daemons"
SERVES = "serves"
STARTED_BY = "MEMPALACE_TEST_STARTED_BY"
BUSY = "busy"  # connections after which its starter has certainly had one
_BUSY_AFTER = 20
_KEPT = 300  # connections; the oldest are cut
LIFE_S = 60  # of one that its test forgot
REPORTS = {
    "lost_race": b'{"state": "lost_race"}\n',
    "fail": b'{"state": "failed", "reason": "the palace is on fire", "hint": "put it out"}\n',
    "garbage": b"Segmentation fault\n",
    "flash": b'{"state": "ready", "endpoint": "unix:/gone", "pid": 1}\n',
}


def note(root: str, name: str) -> None:
    """Append our pid to ROOT/name, in one write."""
    fd = os.open(os.path.join(root, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)


def serve(files: StateFiles, start_fd: int) -> None:
    owner = FileLock(files.owner_lock)
    if not owner.acquire(Deadline.after(Clock(), 0.5)):
        os.write(start_fd, REPORTS["lost_race"])
        return
    note(files.root, SERVES)
    owner.write_body(json.dumps({"pid": os.getpid(), "endpoint": f"unix:{files.socket}", "root": files.root}).encode())
    listener = socket.socket(socket.AF_UNIX)
    if os.path.lexists(files.socket):
        os.unlink(files.socket)
    listener.bind(files.socket)
    listener.listen(512)
    me = this_process()
    record = DiscoveryRecord(
        record=os.urandom(16).hex(),
        pid=me.pid,
        start=me.start,
        boot=me.boot,
        pidns=me.pidns,
        host=os.uname().nodename,
        endpoints=[f"unix:{files.socket}"],
        palace={"path": files.palace, "graph": ""},
        started_by=os.environ.get(STARTED_BY, ""),
    )
    RecordFile(files.record).publish(record)
    StartReport(start_fd).ready(record.endpoints[0])
    kept: list[socket.socket] = []
    listener.settimeout(LIFE_S)
    for count in itertools.count(1):
        peer, _ = listener.accept()
        if count == _BUSY_AFTER:
            note(files.root, BUSY)
        with contextlib.suppress(OSError):  # it left already
            peer.sendall(f"{os.getpid()}\n".encode())
        kept.append(peer)
        del kept[:-_KEPT]


def main(behaviour: str, root: str, palace: str, start_fd: int) -> None:
    files = StateFiles(root, palace)
    note(root, PIDS)
    if behaviour == "serve":
        serve(files, start_fd)
    elif behaviour == "mute":
        time.sleep(LIFE_S)
    elif behaviour == "die":
        sys.exit("out of memory")
    else:
        os.write(start_fd, REPORTS[behaviour])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[5]))
