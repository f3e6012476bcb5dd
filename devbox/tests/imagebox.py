"""The image's entry points without the image: this machine's root in a namespace, plus a user and the image's files.

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

# The last steps of Dockerfile.base. The relay is a stand-in: there is no network to relay.
_INSTALL = r"""
set -eu
cp -R {image}/rootfs/. /
cp {image}/entrypoint.sh {image}/entrypoint-user.sh /usr/local/bin/
chmod 755 /usr/local/bin/entrypoint*.sh {lib}/*.sh
printf '%s' "$0" > /usr/local/bin/studio-expose
chmod 755 /usr/local/bin/studio-expose
mkdir -p /opt/mempalace-broker/venv/bin
ln -sf /usr/bin/python3 /opt/mempalace-broker/venv/bin/python
cp -R {source}/pi_devbox /usr/lib/python3/dist-packages/
! getent passwd 1000 > /dev/null || userdel "$(getent passwd 1000 | cut -d: -f1)"
rm -rf {home}
useradd --no-log-init --create-home --uid 1000 --user-group --shell /bin/bash developer
mkdir -p /workspace
chown {uid}:{gid} /workspace
"""


class ImageBox(Box):
    """A fresh container; it leaves the machine unchanged."""

    def __init__(self, name: str = "devbox") -> None:
        super().__init__(name, home=HOME)

    def start(self) -> ImageBox:
        """Make the container and copy the image's files into it."""
        super().start()
        uid, gid = OWNER
        source = REPO / "devbox" / "src"
        script = _INSTALL.format(image=IMAGE, source=source, lib=LIB, home=HOME, uid=uid, gid=gid)
        self.must("sh", "-c", script, STUDIO)
        return self

    def __enter__(self) -> ImageBox:
        return self.start()

    def enter(
        self, *command: str, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command through the entry point. `prefix` changes the user (setpriv ...)."""
        return self.run([*prefix, ENTRY, *command], env={"HOME": "/root", **(env or {})})

    def must(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Run a command as root, without the entry point, and return its output; it must succeed."""
        done = self.run(command, env=env)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stderr}"
        return done.stdout

    def text(self, path: str) -> str:
        """The content of a file."""
        return self.must("cat", path)

    def owner(self, path: str) -> tuple[int, int]:
        """UID and GID of a file; of a link, not of its target."""
        uid, gid = self.must("stat", "-c", "%u %g", path).split()
        return int(uid), int(gid)

    def tree(self, path: str) -> str:
        """Every file below `path` with owner, mode, time and size."""
        return self.must("find", path, "-printf", "%p %U %G %m %T@ %s %l\n")
