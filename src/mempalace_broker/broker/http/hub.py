"""Publishes mempalace's records of a hub and a daemon in the homes of those who use the palace.

Records and token are in the user's private folder; ~/.mempalace/server/KEY and ~/.mempalace/daemon/KEY are links to it.
Containers may have ~/.mempalace mounted. There the links lead nowhere, so containers get neither the token, which
permits everything that the user may do, nor a record whose pid means another process to them.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ...system.kernel import is_free
from ...system.private import VARIABLE, private_home
from ...system.shared_files import SharedFolder, make_folders, unlink_quietly
from ...system.token_file import private_token
from .machine.hub_record import ENDPOINT, FOLDERS, PID, RECORD, TOKEN, encode, endpoint, is_hub, key_of, pid_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ...system.paths import StateFiles
    from ...system.private import PrivateFile, PrivateFolder

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

    Attributes:
        set_aside: folders of mempalace's own daemon that were renamed to make room for ours.
    """

    def __init__(self, files: StateFiles, env: Mapping[str, str]) -> None:
        self._palace = files.palace
        self._folder = hub_folder(files.private)
        self._own = ("" if VARIABLE in env else private_home(), env.get("HOME", ""))
        self._pid = os.getpid()
        self._homes: dict[str, None] = {}  # in which the record is to be published
        self.set_aside: list[str] = []

    def file(self, name: str) -> PrivateFile:
        """A file beside the record."""
        return self._folder.file(name)

    def token(self) -> str:
        """The token for mempalace's own clients."""
        return private_token(self.file(TOKEN))

    def publish(
        self, port: int, tools: list[Any] | None, fingerprint: str | None, homes: Iterable[str], pid: int = 0
    ) -> None:
        """Bring the records up to date in all homes; do nothing while there are no tools to offer.

        Args:
            pid: of the process that lives as long as the record is valid; 0: our own.

        Raises:
            AnotherHub: see there; names it.
        """
        for home in (*self._own, *homes):
            self._add(home)
        if tools is None or not is_hub(tools):
            return
        pid = self._pid = pid or os.getpid()
        record = encode(palace=self._palace, pid=pid, port=port, tools=tools, fingerprint=fingerprint)
        says = {ENDPOINT: endpoint(palace=self._palace, pid=pid, port=port), PID: b"%d\n" % pid, RECORD: record}
        for name, data in says.items():
            if self.file(name).read(_LIMIT) != data:
                self.file(name).write(data)
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
        """Remove the records if they are still ours."""
        withdraw(self._folder, self._pid)

    def _add(self, home: str) -> None:
        if os.path.isabs(home) and len(self._homes) < MOST_HOMES:
            self._homes[os.path.normpath(home)] = None

    def _link(self, home: str) -> None:
        info = os.stat(home)
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            return  # another user's, or open to others
        root = os.path.realpath(os.path.join(home, ".mempalace"))
        make_folders(root)
        with SharedFolder.open(root) as above:
            for kind in FOLDERS:
                with above.folder(kind, make=True) as folder:
                    self._link_in(folder, kind)

    def _link_in(self, folder: SharedFolder, kind: str) -> None:
        name = key_of(self._palace)
        found = folder.look(name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            if os.readlink(name, dir_fd=folder.fd) == self._folder.path:
                return
            folder.remove(name)
        elif found is not None:
            aside = _put_aside(folder, name, FOLDERS[kind])
            self.set_aside += [aside] if kind == "daemon" else []
        os.symlink(self._folder.path, name, dir_fd=folder.fd)


def hub_folder(private: PrivateFolder) -> PrivateFolder:
    """Return the folder of the records, in the private folder of a palace."""
    return private.folder(_FOLDER)


def withdraw(folder: PrivateFolder, pid: int) -> None:
    """Remove the records if they name that process."""
    if pid_in(folder.file(RECORD).read(_LIMIT)) == pid:
        for name in (ENDPOINT, PID, RECORD):
            unlink_quietly(folder.file(name).path)


def _put_aside(folder: SharedFolder, name: str, record: str) -> str:
    """Rename the folder of mempalace's own hub or daemon, unless that is running; return the new path."""
    with folder.folder(name) as old:
        pid = pid_in(old.read(record, _LIMIT))
    if pid and pid != os.getpid() and not is_free(pid):
        raise AnotherHub(f"pid {pid}, a server of mempalace's own, serves this palace ({folder.path}/{name})")
    aside = f"{name}{_ASIDE}-{os.urandom(3).hex()}"
    folder.rename(name, aside)
    return f"{folder.path}/{aside}"
