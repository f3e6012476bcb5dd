"""A confined call reads its own folder, whatever a name in it leads to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import io, os, sys, threading
from pathlib import Path
from mempalace_broker.engine.confinement import Confinement
ws, secret, own = map(Path, sys.argv[1:])
confinement = Confinement([str(own)])

def refused(read):
    try:
        read()
    except PermissionError as exc:
        return "outside the folder" in str(exc)
    return False

def reads(path):
    return (
        lambda: open(path).read(),
        lambda: io.open(path, "rb").read(),
        lambda: path.read_text(),
        lambda: path.read_bytes(),
        lambda: os.close(os.open(path, os.O_RDONLY)),
    )

with confinement.confine([str(ws)]):
    for inside in (ws / "a.txt", ws / "in", own / "b.txt"):
        for read in reads(inside):
            assert not refused(read), inside
    for outside in (ws / "out", ws / "folder" / "key", ws / "own", ws / "environ", secret / "key"):
        for read in reads(outside):
            assert refused(read), outside
    for read in reads(ws / "fifo"):
        try:
            read()
        except PermissionError:
            continue
        raise AssertionError("a FIFO was read")
    assert open(ws / "a.txt", "r", -1, None, None, None, True, os.open).read() == "fine"
    free = []
    thread = threading.Thread(target=lambda: free.append((secret / "key").read_text()))
    thread.start(); thread.join()
    assert free == ["TOPSECRET"], "another thread runs another call"
    with confinement.confine(None):
        assert (secret / "key").read_text() == "TOPSECRET", "a host's call between two files of the mine"
    assert refused(reads(secret / "key")[0])
    fd = os.open(ws / "a.txt", os.O_RDONLY)
    assert open(fd).read() == "fine"
    (secret / "new").write_text("mempalace's own")
with confinement.confine([]):
    assert refused(reads(ws / "a.txt")[0])
assert (ws / "out").read_text() == "TOPSECRET"
import json, tempfile, encodings.idna
print("done")
"""


def test_it_stays_inside(tmp_path: Path) -> None:
    ws, secret, own = (tmp_path / name for name in ("ws", "secret", "own"))
    for folder in (ws, secret, own):
        folder.mkdir()
    (ws / "a.txt").write_text("fine")
    (own / "b.txt").write_text("fine")
    (secret / "key").write_text("TOPSECRET")
    (ws / "out").symlink_to(secret / "key")
    (ws / "folder").symlink_to(secret)
    (ws / "in").symlink_to("a.txt")
    (ws / "own").symlink_to(own / "b.txt")
    (ws / "environ").symlink_to("/proc/self/environ")
    os.mkfifo(ws / "fifo")
    argv = [sys.executable, "-c", _SCRIPT, *map(os.path.realpath, (ws, secret, own))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr
