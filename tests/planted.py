"""What somebody who can write a shared folder may put there under the name of a file of ours."""

from __future__ import annotations

import os
from pathlib import Path


def plant(path: Path, kind: str, own: Path) -> None:
    """Put something at `path`; `own` is a file of the user's, to which a link or a second name may lead."""
    if kind == "link":
        path.symlink_to(own)
    elif kind == "dangling link":
        path.symlink_to(own.with_name("none"))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        assert kind == "second name"
        own.chmod(0o666)
        os.link(own, path)
