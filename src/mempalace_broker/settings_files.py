"""Where settings are read: the user's own config.toml, and broker.toml in the state root, which others can write.

    [broker]                                # for every palace of the user
    engine = "/path/to/python"              # or a mempalace-mcp
    idle_s = 900
    [palaces."/home/me/work/palace"]        # the same, for one palace
    idle_s = 0
    env = { MEMPALACE_PGVECTOR_DSN = "..." }
    [container]                             # where this palace belongs to another kernel
    ssh_config = "~/.ssh-local/config"

config.toml lies in a folder that only the user can write to (`system/private`), so it may say what runs. broker.toml
is shared with containers: of it only the fields of [container] that are declared as shared count, and whatever else
stands there is a finding. Environment variables win over both.
"""

from __future__ import annotations

import os
import re
import tomllib
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .protocol.text import printable
from .settings import BrokerSettings, ContainerSettings, settings_of, shown
from .system.kernel import real_path
from .system.private import SETTINGS, private_home, settings_folder
from .system.shared_files import SharedFolder, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from .settings import Setting

_MAX_BYTES = 1 << 18
_MAX_SHARED_BYTES = 1 << 14
_MAX_STEPS = 200  # dots and brackets in one line: the parser's time grows with their square
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MAX_VALUE = 16_384
_BROKER: Final = settings_of(BrokerSettings)
_CONTAINER: Final = settings_of(ContainerSettings)
_SHARED: Final = tuple(setting for setting in _CONTAINER if setting.shared)
_PAGE = "see docs/settings.md"


class PrivateSettings:
    """config.toml: its tables, and the name by which messages call it. Without arguments: a file that is absent."""

    def __init__(self, tables: Mapping[str, Any] | None = None, path: str = SETTINGS) -> None:
        self._tables = tables or {}
        self._path = path

    @classmethod
    def read(cls, env: Mapping[str, str]) -> PrivateSettings:
        """Read the user's file; one that is absent, or in a home that is not the user's, has no tables.

        Raises:
            UsageError: it can't be read or believed, or it is not TOML in UTF-8.
        """
        file = settings_folder(env).file(SETTINGS)
        path = file.path
        try:
            data = file.read(_MAX_BYTES)
        except Untrusted as exc:
            hint = f"let it and the folders above it belong to you, writable by you alone: ls -ld {path}"
            raise UsageError(f"{path} is not believed: {exc.strerror}.", hint=hint) from exc
        except OSError as exc:
            raise UsageError(
                f"cannot read {path}: {exc.strerror or exc}.", hint=f"make {path} readable, or remove it"
            ) from exc
        return cls({}, path) if data is None else cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: str = SETTINGS) -> PrivateSettings:
        """Take the content of the file.

        Raises:
            UsageError: it is too long, or it is not TOML in UTF-8.
        """
        return cls(_tables(data, path, _MAX_BYTES), path)

    def broker(self, env: Mapping[str, str], palace: str = "") -> BrokerSettings:
        """The settings of the broker of `palace` (its real path), with the variables of `env` over them.

        Raises:
            UsageError: an unknown name, a wrong type, or a value out of range; names the place and what is allowed.
        """
        values: dict[str, Any] = {}
        sources = dict.fromkeys((setting.name for setting in _BROKER), "default")
        variables: dict[str, str] = {}
        folders: list[str] = []
        for name, table in self._broker_tables(palace):
            variables |= _variables(table.pop("env", {}), f"{self._path}: [{name}] env")
            folders += _folders(table.pop("guest_folders", []), f"{self._path}: [{name}] guest_folders")
            found = _checked(_BROKER, table, f"{self._path}: [{name}]")
            values |= found
            sources |= dict.fromkeys(found, self._path if name == "broker" else f"{self._path} [{name}]")
        _apply_environment(_BROKER, env, values, sources)
        return BrokerSettings(sources, **values, env=variables, guest_folders=tuple(folders))

    def container(self, env: Mapping[str, str], shared: SharedSettings | None = None) -> ContainerSettings:
        """Table [container] over what `shared` says, with the variables of `env` over both. Errors as `broker`."""
        table = _table(self._tables, "container", self._path)
        paths = table.pop("paths", {})
        found = _checked(_CONTAINER, table, f"{self._path}: [container]")
        if not isinstance(paths, dict) or not all(_is_folder(word) for pair in paths.items() for word in pair):
            raise UsageError(
                f"{self._path}: [container.paths] must map absolute folders to absolute folders.",
                hint='write "/workspace" = "/Users/me/work"',
            )
        values = dict(shared.values) if shared else {}
        sources = dict.fromkeys((setting.name for setting in _CONTAINER), "default")
        sources |= dict.fromkeys(values, shared.path if shared else "")
        values |= found
        sources |= dict.fromkeys(found, self._path)
        _apply_environment(_CONTAINER, env, values, sources)
        return ContainerSettings(sources, **values, paths={_bare(here): _bare(there) for here, there in paths.items()})

    def _broker_tables(self, palace: str) -> list[tuple[str, dict[str, Any]]]:
        """[broker], then whatever tables name this palace."""
        found = [("broker", _table(self._tables, "broker", self._path))]
        palaces = _table(self._tables, "palaces", self._path)
        for name in palaces:
            where = f'palaces."{printable(name)}"'
            path = os.path.join(private_home(), name[2:]) if name.startswith("~/") else name
            if not os.path.isabs(path):
                raise UsageError(
                    f"{self._path}: [{where}] does not name a folder.", hint='write [palaces."/home/me/work/palace"]'
                )
            if palace and real_path(path) == palace:
                found.append((where, _table(palaces, name, self._path)))
        return found


class SharedSettings:
    """broker.toml in the state root: data that anybody who has the folder mounted can write.

    Attributes:
        path: of the file. values: what counts of it, by name.
        misplaced: settings that do not count there, as "[table] name"; they belong into config.toml.
        problem: why the file, or a setting in it, was not taken; "" where all is well.
    """

    def __init__(self, path: str = "broker.toml") -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.misplaced: list[str] = []
        self.problem = ""

    @classmethod
    def read(cls, path: str) -> SharedSettings:
        """Read the file; never raises: whoever can write it must not be able to stop anybody with it."""
        folder, name = os.path.split(path)
        try:
            with SharedFolder.open(folder) as opened:
                data = opened.read(name, _MAX_SHARED_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            data = None
        except OSError as exc:
            found = cls(path)
            found.problem = f"{path} is not read: {exc.strerror or exc}"
            return found
        return cls(path) if data is None else cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: str = "broker.toml") -> SharedSettings:
        """Take the content of the file. Never raises."""
        found = cls(path)
        try:
            found._take(_tables(data, path, _MAX_SHARED_BYTES))
        except UsageError as exc:
            found.problem = exc.message.rstrip(".")
        return found

    def _take(self, tables: dict[str, Any]) -> None:
        known = {setting.name: setting for setting in _SHARED}
        for table, content in tables.items():
            if table != "container" or not isinstance(content, dict):
                names = content if isinstance(content, dict) else ("",)
                self.misplaced += [printable(f"[{table}] {name}".rstrip(), 80) for name in names]
                continue
            for name, value in content.items():
                if name in known:
                    self._set(known[name], value)
                else:
                    self.misplaced.append(printable(f"[container] {name}", 80))

    def _set(self, setting: Setting, value: object) -> None:
        try:
            self.values[setting.name] = setting.checked(value, f"{self.path}: {setting.name}")
        except UsageError as exc:
            self.problem = exc.message.rstrip(".")


def settings_path(env: Mapping[str, str]) -> str:
    """The path of the user's config.toml, for messages; "" where the user has no home."""
    return settings_folder(env).file(SETTINGS).path


def _tables(data: bytes, path: str, limit: int) -> dict[str, Any]:
    """Parse TOML in bounded time and depth. Raises UsageError."""
    if len(data) > limit:
        raise UsageError(f"{path} has more than {limit} bytes.", hint=f"shorten {path}")
    try:
        text = data.decode("utf-8-sig")  # editors of Windows begin a file with a mark
        if any(sum(map(line.count, ".[{")) > _MAX_STEPS for line in text.splitlines()):
            raise UsageError(f"{path} is nested too deeply.", hint=f"correct {path}")
        return tomllib.loads(text)
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is not UTF-8: {exc}.", hint=f"save {path} as UTF-8") from exc
    except (ValueError, RecursionError) as exc:  # TOMLDecodeError, and numbers that are too long
        raise UsageError(f"{path} is not valid TOML: {printable(str(exc), 200)}.", hint=f"correct {path}") from exc


def _table(tables: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: [{printable(name)}] must be a table.", hint=_PAGE)
    return dict(table)


def _checked(settings: tuple[Setting, ...], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a table, each as its setting wants it. Raises UsageError."""
    known = {setting.name: setting for setting in settings}
    for name in table:
        if name not in known:
            raise UsageError(f"{where}: no setting named {shown(name)}.", hint=f"known are: {', '.join(known)}")
    return {name: known[name].checked(value, f"{where} {name}") for name, value in table.items()}


def _apply_environment(
    settings: tuple[Setting, ...], env: Mapping[str, str], values: dict[str, Any], sources: dict[str, str]
) -> None:
    for setting in settings:
        text = env.get(setting.env, "")
        if text:
            values[setting.name] = setting.from_env(text)
            sources[setting.name] = f"environment ({setting.env})"


def _variables(table: object, where: str) -> dict[str, str]:
    """Environment variables for the engine. Raises UsageError, which never quotes a value: it may be a password."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table.", hint='write env = { NAME = "value" }')
    for name, value in table.items():
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"{where}: {shown(name)} is not the name of a variable.", hint=_PAGE)
        if not isinstance(value, str) or len(value) > _MAX_VALUE or "\0" in value:
            raise UsageError(f"{where}: the value of {name} is not text.", hint=f'write {name} = "value"')
    return dict(table)


def _folders(value: object, where: str) -> list[str]:
    """Folders by absolute paths; `~` is the user's own home, whatever $HOME says. Raises UsageError."""
    hint = 'write guest_folders = ["/home/me/work"]'
    if not isinstance(value, list):
        raise UsageError(f"{where} must be a list.", hint=hint)
    found = []
    for folder in value:
        path = os.path.join(private_home(), folder[2:]) if isinstance(folder, str) and folder[:2] == "~/" else folder
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise UsageError(f"{where}: {shown(folder)} is not an absolute path.", hint=hint)
        found.append(path)
    return found


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _bare(folder: str) -> str:
    return folder.rstrip("/") or "/"
