"""What others put under our names: a guest in a shared folder, another user where anybody may write."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

STRANGER = 54321  # a user id of nobody
# argv: where to listen, as which user; says what it hears
LISTEN = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.umask(0)
os.setuid(int(sys.argv[2]))
sock.bind(sys.argv[1])
sock.listen(5)
print("ready", flush=True)
while True:
    peer, _ = sock.accept()
    print("heard", peer.recv(4096), flush=True)
"""


def plant(path: Path, kind: str, own: Path) -> None:
    """Put something at `path`; `own` is a file of the user's, to which a link or a second name may lead."""
    if kind == "link":
        path.symlink_to(own)
    elif kind == "dangling link":
        path.symlink_to(own.with_name("none"))
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: root only
    elif kind in ("empty", "sparse"):
        path.touch()
        os.truncate(path, 100 << 20 if kind == "sparse" else 0)
    elif kind in ("unreadable", "stranger's"):
        path.write_text("{}")
        path.chmod(0) if kind == "unreadable" else os.chown(path, STRANGER, STRANGER)
    elif kind == "folder":
        path.mkdir()
    else:
        assert kind == "second name"
        own.chmod(0o666)
        os.link(own, path)
