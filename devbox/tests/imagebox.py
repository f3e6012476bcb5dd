"""The image's entry points without the image: this machine's own root in a namespace, with a user and the files added.

with ImageBox() as box:
    box.enter("id", "-u").stdout
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.netbox import Box

REPO = Path(__file__).resolve().parents[2]
IMAGE = REPO / "devbox" / "image"
HOME = "/home/developer"
ENTRY = "/usr/local/bin/entrypoint.sh"
LIB = "/usr/local/lib/pi-devbox"
OWNER = (4242, 4343)  # of the workspace
BRIDGE = {"HOST_SSH_USER": "me", "HOST_SSH_PORT": "2222"}
SSH_CONFIG = f"{HOME}/.ssh-local/config"  # what the entry point writes for BRIDGE
STUDIO = "#!/bin/sh\necho relaying as $(id -u)\nexec sleep 1000\n"

# What Dockerfile.base does after all is installed. The relay is a stand-in: here is no network to relay.
_INSTALL = r"""
set -eu
cp -R {image}/rootfs/. /
cp {image}/entrypoint.sh {image}/entrypoint-user.sh /usr/local/bin/
chmod 755 /usr/local/bin/entrypoint*.sh {lib}/*.sh
printf '%s' "$0" > /usr/local/bin/studio-expose
chmod 755 /usr/local/bin/studio-expose
! getent passwd 1000 > /dev/null || userdel "$(getent passwd 1000 | cut -d: -f1)"
rm -rf {home}
useradd --no-log-init --create-home --uid 1000 --user-group --shell /bin/bash developer
mkdir -p /workspace
chown {uid}:{gid} /workspace
"""


class ImageBox(Box):
    """A fresh container each; nothing that happens in it reaches the machine."""

    def __init__(self, name: str = "devbox") -> None:
        super().__init__(name, home=HOME)

    def start(self) -> ImageBox:
        """Make it and put the image's files into it."""
        super().start()
        uid, gid = OWNER
        script = _INSTALL.format(image=IMAGE, lib=LIB, home=HOME, uid=uid, gid=gid)
        self.must("sh", "-c", script, STUDIO)
        return self

    def __enter__(self) -> ImageBox:
        return self.start()

    def enter(
        self, *command: str, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Start the container's command through the entry point, to its end. `prefix`: as whom (setpriv ...)."""
        return self.run([*prefix, ENTRY, *command], env={"HOME": "/root", **(env or {})})

    def must(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """What a command prints, run as root beside the entry point; it has to succeed."""
        done = self.run(command, env=env)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stderr}"
        return done.stdout

    def text(self, path: str) -> str:
        """A file's content."""
        return self.must("cat", path)

    def owner(self, path: str) -> tuple[int, int]:
        """UID and GID of a file, of a link itself."""
        uid, gid = self.must("stat", "-c", "%u %g", path).split()
        return int(uid), int(gid)

    def tree(self, path: str) -> str:
        """Every file below `path` with owner, mode, time and size."""
        return self.must("find", path, "-printf", "%p %U %G %m %T@ %s %l\n")
