"""Publishes mempalace's record of a hub in the homes of those who use the palace.

Record and token lie in the user's private folder, and ~/.mempalace/server/KEY is a link to it. For ~/.mempalace is what
containers have mounted: there the link leads nowhere, so they get neither the token, which permits what the user may
do, nor a record whose pid means another process to them.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ...system.kernel import is_free
from ...system.private import VARIABLE, private_home
from ...system.shared_files import SharedFolder, make_folders
from ...system.token_file import private_token
from .machine.hub_record import RECORD, TOKEN, encode, is_hub, key_of, pid_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ...system.paths import StateFiles
    from ...system.private import PrivateFile

_FOLDER = "hub"
_LIMIT = 64 << 10
_ASIDE = ".before-broker"
MOST_HOMES = 16


class AnotherHub(Exception):
    """A process that lives has its own record for the palace."""


class HubRecord:
    """The record of one broker. Methods block; all raise OSError as the system reports it.

    Args:
        env: the broker's environment: the home of whoever started it is one of those that get the record.
    """

    def __init__(self, files: StateFiles, env: Mapping[str, str]) -> None:
        self._palace = files.palace
        self._folder = files.private.folder(_FOLDER)
        self._record = self._folder.file(RECORD)
        self._own = ("" if VARIABLE in env else private_home(), env.get("HOME", ""))
        self._homes: dict[str, None] = {}  # in which the record is to be published

    def file(self, name: str) -> PrivateFile:
        """A file beside the record."""
        return self._folder.file(name)

    def token(self) -> str:
        """The token for mempalace's own clients."""
        return private_token(self._folder.file(TOKEN))

    def publish(self, port: int, tools: list[Any] | None, fingerprint: str | None, homes: Iterable[str]) -> None:
        """Make the record say what is true now, in all homes; without tools to offer, nothing.

        Raises:
            AnotherHub: see there; names it.
        """
        for home in (*self._own, *homes):
            self._add(home)
        if tools is None or not is_hub(tools):
            return
        record = encode(palace=self._palace, pid=os.getpid(), port=port, tools=tools, fingerprint=fingerprint)
        if self._record.read(_LIMIT) != record:
            self._record.write(record)
        failure: OSError | AnotherHub | None = None
        published, self._homes = self._homes, {}  # a link stays, also when its session has ended
        for home in published:
            try:
                self._link(home)
            except FileNotFoundError:  # no such home: nobody looks there
                continue
            except (OSError, AnotherHub) as exc:  # the others get theirs
                failure = failure or exc
        if failure is not None:
            raise failure

    def withdraw(self) -> None:
        """Remove the record, if it is ours still."""
        if pid_in(self._record.read(_LIMIT)) == os.getpid():
            os.unlink(self._record.path)

    def _add(self, home: str) -> None:
        if os.path.isabs(home) and len(self._homes) < MOST_HOMES:
            self._homes[os.path.normpath(home)] = None

    def _link(self, home: str) -> None:
        info = os.stat(home)
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            return  # another user's, or open to others
        root = os.path.realpath(os.path.join(home, ".mempalace"))
        make_folders(root)
        name = key_of(self._palace)
        with SharedFolder.open(root) as above, above.folder("server", make=True) as folder:
            found = folder.look(name)
            if found is not None and stat.S_ISLNK(found.st_mode):
                if os.readlink(name, dir_fd=folder.fd) == self._folder.path:
                    return
                folder.remove(name)
            elif found is not None:
                _put_aside(folder, name)
            os.symlink(self._folder.path, name, dir_fd=folder.fd)


def _put_aside(folder: SharedFolder, name: str) -> None:
    """Make room where `mempalace serve` had its record, unless it is at work."""
    with folder.folder(name) as old:
        pid = pid_in(old.read(RECORD, _LIMIT))
    if pid and pid != os.getpid() and not is_free(pid):
        raise AnotherHub(f"pid {pid} serves this palace by mempalace's own hub ({folder.path}/{name})")
    folder.rename(name, f"{name}{_ASIDE}-{os.urandom(3).hex()}")
