"""The user's own folders, in which nobody else can write: the settings, and what each palace's broker keeps for itself.

    ~/.config/mempalace-broker/config.toml
    ~/.local/state/mempalace-broker/PALACE-KEY/     log, cached answers, reason of the last exit, failed starts
    ~/.local/state/mempalace-broker/ssh/            the bridges of a container, where there is no runtime folder

What decides lies here, for a container that has the state root mounted does not have this. "~" is the home in the
password file and never $HOME or $XDG_...: an agent's environment must not choose another. $MEMPALACE_BROKER_PRIVATE
names one folder for all, for tests and sandboxes: its config.toml, its state/PALACE-KEY/ and its ssh/.

A home that is missing, read-only or another user's is not an error: everything then works with default settings and
keeps nothing. `PrivateFolder.problem` says why. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import errno
import os
import stat

from ..protocol.jsonrpc import load_object
from .file_trust import others_write
from .shared_files import Untrusted, read_at_most, replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VARIABLE = "MEMPALACE_BROKER_PRIVATE"
SETTINGS = "config.toml"
_NAME = "mempalace-broker"
_TMP = "/tmp"
_KEY_DIGITS = 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def private_home() -> str:
    """The home of the effective user in the password file, "" where there is none."""
    import pwd

    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""
    return home if os.path.isabs(home) else ""


def palace_key(palace: str) -> str:
    """The name of a palace's folder: 20 hex digits that go by its real path."""
    import hashlib

    return hashlib.sha256(os.fsencode(palace)).hexdigest()[:_KEY_DIGITS]


def settings_folder(env: Mapping[str, str]) -> PrivateFolder:
    """The folder of config.toml."""
    return _below(env, (".config", _NAME), ())


def state_folder(palace: str, env: Mapping[str, str]) -> PrivateFolder:
    """The folder of one palace, named by its real path."""
    return _below(env, (".local", "state", _NAME, palace_key(palace)), ("state", palace_key(palace)))


def updates_file(env: Mapping[str, str]) -> PrivateFile:
    """Return the file of the newest versions, and when they were asked for."""
    return _below(env, (".local", "state", _NAME), ("state",)).file("updates.json")


def temp_folder(palace: str) -> PrivateFolder:
    """The folder of one palace in /tmp, for sockets of users without a home of their own on this machine."""
    return PrivateFolder(f"{_TMP}/{_NAME}-{os.geteuid()}", (palace_key(palace),), make_base=True)


def bridges_folder(env: Mapping[str, str]) -> PrivateFolder:
    """The folder of all bridges. Its name is short: sockets lie in it."""
    return _below(env, (".local", "state", _NAME, "ssh"), ("ssh",))


def _below(env: Mapping[str, str], in_home: tuple[str, ...], in_named: tuple[str, ...]) -> PrivateFolder:
    named = env.get(VARIABLE, "")
    if os.path.isabs(named):
        return PrivateFolder(os.path.normpath(named), in_named, make_base=True)
    return PrivateFolder(private_home(), in_home)


class PrivateFolder:
    """One folder of the user's own.

    Args:
        base: where trust begins, "" where the user has no home. steps: the names that lead from there to the folder.
        make_base: whether `make` may make the base, too.

    Attributes:
        path: "" where the user has no home.
    """

    __slots__ = ("_base", "_make_base", "_steps", "path")

    def __init__(self, base: str, steps: tuple[str, ...], *, make_base: bool = False) -> None:
        self._base = base
        self._steps = steps
        self._make_base = make_base
        self.path = os.path.join(base, *steps) if base else ""

    def file(self, name: str) -> PrivateFile:
        """A file in this folder."""
        return PrivateFile(self, name)

    def folder(self, name: str) -> PrivateFolder:
        """A folder in this one."""
        return PrivateFolder(self._base, (*self._steps, name), make_base=self._make_base)

    def problem(self) -> str:
        """Why nothing in this folder counts, "" where it does, or where there is no such folder yet."""
        if not self._base:
            return f"user {os.geteuid()} has no home directory in the password file"
        for path in self._chain():
            try:
                info = os.stat(path)
            except FileNotFoundError:
                return f"{path} does not exist" if path == self._base and not self._make_base else ""
            except OSError as exc:
                return f"{path}: {exc.strerror or exc}"
            if not stat.S_ISDIR(info.st_mode):
                return f"{path} is not a folder"
            if why := _distrust(info, path):
                return f"{path} {why}"
        return ""

    def make(self) -> str:
        """Make the folder, 0700, with whatever is missing above it; why that is impossible, "" once it is there."""
        if why := self.problem():
            return why
        for path in self._chain()[0 if self._make_base else 1 :]:
            try:
                os.mkdir(path, 0o700)
                os.chmod(path, 0o700)  # whatever the umask of the agent that we run for
            except FileExistsError:
                pass
            except OSError as exc:
                return f"{path}: {exc.strerror or exc}"
        return self.problem() or ("" if os.access(self.path, os.W_OK | os.X_OK) else f"{self.path} is not writable")

    def writable(self) -> bool:
        """Whether nothing is wrong with the folder, and it can be written, or made where it is missing."""
        if self.problem():
            return False
        there = next((path for path in reversed(self._chain()) if os.path.exists(path)), os.path.dirname(self._base))
        return os.access(there, os.W_OK | os.X_OK)

    def is_anothers(self) -> bool:
        """Whether trust would begin in a folder of another user: then nothing here is for us."""
        try:
            return not _is_ours(os.stat(self._base))
        except OSError:
            return False

    def _chain(self) -> list[str]:
        """The base and every folder from there to this one."""
        chain = [self._base]
        for step in self._steps:
            chain.append(os.path.join(chain[-1], step))
        return chain


class PrivateFile:
    """One file in a private folder.

    Attributes:
        path: "" where the user has no home.
    """

    __slots__ = ("_folder", "path")

    def __init__(self, folder: PrivateFolder, name: str) -> None:
        self._folder = folder
        self.path = os.path.join(folder.path, name) if folder.path else ""

    def read(self, limit: int) -> bytes | None:
        """Its first `limit` + 1 bytes, None where there is no such file. A link is followed: it is the user's own, as
        dotfile managers make them. In a home that belongs to another user there is no file for us.

        Raises:
            Untrusted: others can write to the file or to a folder above it, or it is not a regular file.
            OSError: as the system reports it.
        """
        try:
            fd = os.open(self.path, _READ)
        except (FileNotFoundError, NotADirectoryError):
            if self.path and os.path.islink(self.path):
                raise OSError(errno.ENOENT, "it is a link to a file that does not exist", self.path) from None
            return None
        try:
            if self._folder.is_anothers():
                return None
            info = os.fstat(fd)
            why = "it is not a regular file" if not stat.S_ISREG(info.st_mode) else _distrust(info, self.path)
            if why or (why := _distrust_place(self.path)) or (why := self._folder.problem()):
                raise Untrusted(self.path, why)
            return read_at_most(fd, limit + 1)
        finally:
            os.close(fd)

    def read_object(self, limit: int) -> dict[str, Any]:
        """The JSON object in it; {} where there is none, or it can't be read or believed."""
        try:
            return load_object(self.read(limit))
        except OSError:
            return {}

    def write(self, data: bytes) -> None:
        """Replace it, making the folder where it is missing. Raises OSError where that is impossible."""
        if why := self._folder.make():
            raise OSError(errno.EACCES, why, self.path)
        replace_file(self.path, data)


def _is_ours(info: os.stat_result) -> bool:
    return info.st_uid in (os.geteuid(), 0)


def _distrust_place(path: str) -> str:
    """Why the folder that a link leads to can't be trusted, "" if it can: others must not swap the target."""
    folder = os.path.dirname(os.path.realpath(path))
    if folder == os.path.realpath(os.path.dirname(path)):
        return ""  # no link, or beside it
    info = os.stat(folder)
    if info.st_mode & stat.S_ISVTX and _is_ours(info):
        return ""  # like /nix/store: only the owner of a file there can replace it
    why = _distrust(info, folder)
    return f"leads to {folder}, which {why}" if why else ""


def _distrust(info: os.stat_result, path: str) -> str:
    """Why a file or folder of the user's own can't be trusted, "" if it can."""
    if not _is_ours(info):
        return f"belongs to another user (uid {info.st_uid})"
    if others_write(info):
        return f"can be written by other users (mode {info.st_mode & 0o7777:o}); chmod go-w {path}"
    return ""
