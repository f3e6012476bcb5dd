"""Settings that must not depend on who starts the broker: broker.toml, with environment variables over it.

    [broker]
    engine = "/path/to/python"     # or a mempalace-mcp
    idle_s = 900

`SettingsFile` is the only reader of that file. Every value knows where it came from; `mempalace-broker status` shows
it. Documented in docs/settings.md; a test compares that page with the fields below.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .errors import UsageError
from .system.atomic_files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PORT = 65535
TCP_DOCKER = "docker"  # where containers of this machine find the host
TCP_ANY = "any"  # every address of this machine: only by that word
_MAX_BYTES = 1 << 20
_MAX_INTERFACE = 15  # IFNAMSIZ without its zero
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_PAGE = "see docs/settings.md"


class LogLevel(StrEnum):
    """The least severe messages that broker.log gets."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DirectMode(StrEnum):
    """Whether a container may open the palace itself; AUTO: where no bridge is configured."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def check_tcp(value: str, where: str) -> str:
    """Normalise where to listen, for `find_address`: "", TCP_DOCKER, TCP_ANY, an address or an interface.

    Raises:
        UsageError: it means every address of the machine without saying so, or it can't be any of these.
    """
    name = value.strip().removeprefix("[").removesuffix("]")
    if name in ("", TCP_DOCKER, TCP_ANY):
        return name
    hint = "write docker, 127.0.0.1, another address or interface of this machine, or any (then all who reach it can)"
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "*" or (address is not None and int(getattr(address, "ipv4_mapped", None) or address) == 0):
        raise UsageError(f"{where}: {value!r} would listen on every address of this machine.", hint=hint)
    if address is not None:
        if address.is_multicast or name == "255.255.255.255":
            raise UsageError(f"{where}: {value!r} is not an address to listen on.", hint=hint)
        return str(address)
    if len(name) > _MAX_INTERFACE or not _INTERFACE.fullmatch(name):
        raise UsageError(f"{where}: {value!r} is neither an address nor an interface.", hint=hint)
    return name


_Value = TypeVar("_Value", str, int, bool, LogLevel, DirectMode)


def _setting(
    env: str,
    default: _Value,
    *,
    minimum: int = 0,
    maximum: int | None = None,
    check: Callable[[str, str], str] | None = None,
) -> _Value:
    """Declare a field that broker.toml and the variable `env` may set."""
    result: _Value = field(
        default=default, metadata={"env": env, "minimum": minimum, "maximum": maximum, "check": check}
    )
    return result


@dataclass(frozen=True, slots=True)
class _Sourced:
    """`sources`: by name, where each value came from."""

    sources: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, dict[str, Any]]:
        """For status: {name: {"value", "source"}}."""
        return {
            setting.name: {"value": getattr(self, setting.name), "source": self.sources[setting.name]}
            for setting in settings_of(type(self))
        }


@dataclass(frozen=True, slots=True)
class BrokerSettings(_Sourced):
    """Table [broker]: the settings of one broker."""

    # interpreter with mempalace, or a mempalace-mcp; "" = found by itself
    engine: str = _setting("MEMPALACE_BROKER_ENGINE", "")
    # exit after this many idle seconds; 0 = never
    idle_s: int = _setting("MEMPALACE_BROKER_IDLE_S", 900)
    # limit of a call's wait, and of its run; 0 = none
    timeout_ms: int = _setting("MEMPALACE_MCP_TIMEOUT_MS", 60_000)
    # limit of an engine's start; 0 = none
    init_timeout_ms: int = _setting("MEMPALACE_MCP_INIT_TIMEOUT_MS", 120_000)
    # in-memory tune-ups of the engine
    tune: bool = _setting("MEMPALACE_BROKER_TUNE", True)
    # calls that may wait per session
    session_calls: int = _setting("MEMPALACE_BROKER_SESSION_CALLS", 20_000, minimum=1)
    # drop a client that accepts no byte for this long
    client_stall_s: int = _setting("MEMPALACE_BROKER_CLIENT_STALL_S", 60, minimum=1)
    # also listen there, see `check_tcp`
    tcp: str = _setting("MEMPALACE_BROKER_TCP", "", check=check_tcp)
    # port of that listener; 0 = the broker chooses
    tcp_port: int = _setting("MEMPALACE_BROKER_TCP_PORT", 0, maximum=MAX_PORT)
    # seconds for running calls when the broker stops
    drain_s: int = _setting("MEMPALACE_BROKER_DRAIN_S", 10, minimum=1)
    # size of broker.log; one older file is kept
    log_bytes: int = _setting("MEMPALACE_BROKER_LOG_BYTES", 4_000_000, minimum=10_000)
    log_level: LogLevel = _setting("MEMPALACE_BROKER_LOG_LEVEL", LogLevel.INFO)  # noqa: RUF009 - a field, not a value

    @property
    def call_s(self) -> float:
        """Seconds a call may wait, and may run; 0 = no limit."""
        return self.timeout_ms / 1000

    @property
    def init_s(self) -> float:
        """Seconds an engine may take to be ready; 0 = no limit."""
        return self.init_timeout_ms / 1000


@dataclass(frozen=True, slots=True)
class ContainerSettings(_Sourced):
    """Table [container]: for clients whose palace belongs to another kernel.

    `paths` is its table {prefix here: prefix there}, both without trailing "/".
    """

    # host of the palace, as ssh's configuration names it
    ssh_host: str = _setting("MEMPALACE_BROKER_SSH_HOST", "")
    # ssh's configuration file
    ssh_config: str = _setting("MEMPALACE_BROKER_SSH_CONFIG", "")
    # the broker's command on that host
    ssh_command: str = _setting("MEMPALACE_BROKER_SSH_COMMAND", "mempalace-broker")
    # whether the palace may be opened from here
    direct: DirectMode = _setting("MEMPALACE_BROKER_DIRECT", DirectMode.AUTO)  # noqa: RUF009 - a field, not a value
    paths: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in broker.toml, its environment variable, default and bounds."""

    name: str
    env: str
    default: str | int | bool
    minimum: int
    maximum: int | None
    check: Callable[[str, str], str] | None

    def from_env(self, text: str) -> str | int | bool:
        """Check the value of the environment variable."""
        return self.checked(_parsed(text, self.default), self.env)

    def checked(self, value: object, where: str) -> str | int | bool:
        """Return `value` as the type of the default.

        Raises:
            UsageError: its type is wrong or it is out of range; `where` says which place to correct.
        """
        if isinstance(self.default, StrEnum) and isinstance(value, str):
            return _choice(type(self.default), value, where)
        if type(value) is not type(self.default) or not isinstance(value, str | int):
            names = {bool: "true or false", int: "a whole number"}
            raise UsageError(f"{where}: {value!r} is not {names.get(type(self.default), 'text')}.", hint=_PAGE)
        if isinstance(value, int) and value < self.minimum:
            raise UsageError(f"{where}: {value} is below {self.minimum}.", hint=_PAGE)
        if isinstance(value, int) and self.maximum is not None and value > self.maximum:
            raise UsageError(f"{where}: {value} is above {self.maximum}.", hint=_PAGE)
        return self.check(value, where) if self.check and isinstance(value, str) else value


def settings_of(table: type[_Sourced]) -> tuple[Setting, ...]:
    """The settings that `table`'s fields declare."""
    return tuple(
        Setting(entry.name, default=cast("str | int | bool", entry.default), **entry.metadata)
        for entry in dataclasses.fields(table)
        if entry.metadata
    )


class SettingsFile:
    """broker.toml: its tables, and the name by which messages call it. Without arguments: a file that is absent."""

    def __init__(self, tables: Mapping[str, Any] | None = None, path: str = "broker.toml") -> None:
        self._tables = tables or {}
        self._path = path

    @classmethod
    def read(cls, path: str) -> SettingsFile:
        """Read `path`; a file that is absent has no tables.

        Raises:
            UsageError: it can't be read, or it is not TOML in UTF-8.
        """
        try:
            data = read_bytes(path, _MAX_BYTES)
        except OSError as exc:
            raise UsageError(f"cannot read {path}: {exc.strerror or exc}.", hint=f"make {path} readable") from exc
        return cls({}, path) if data is None else cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: str = "broker.toml") -> SettingsFile:
        """Take the content of the file.

        Raises:
            UsageError: it is too long, or it is not TOML in UTF-8.
        """
        if len(data) > _MAX_BYTES:
            raise UsageError(f"{path} has more than {_MAX_BYTES} bytes.", hint=f"shorten {path}")
        try:
            return cls(tomllib.loads(data.decode()), path)
        except UnicodeDecodeError as exc:
            raise UsageError(f"{path} is not UTF-8: {exc}.", hint=f"save {path} as UTF-8") from exc
        except tomllib.TOMLDecodeError as exc:
            raise UsageError(f"{path} is not valid TOML: {exc}.", hint=f"correct {path}") from exc

    def broker(self, env: Mapping[str, str]) -> BrokerSettings:
        """Table [broker], with the variables of `env` over it.

        Raises:
            UsageError: an unknown name, a wrong type, or a value out of range; names the place and what is allowed.
        """
        values, sources = self._load(settings_of(BrokerSettings), "broker", self._table("broker"), env)
        return BrokerSettings(sources, **values)

    def container(self, env: Mapping[str, str]) -> ContainerSettings:
        """Table [container], with the variables of `env` over it. Errors as `broker`."""
        table = self._table("container")
        paths = table.pop("paths", {})
        values, sources = self._load(settings_of(ContainerSettings), "container", table, env)
        if not isinstance(paths, dict) or not all(_is_folder(word) for pair in paths.items() for word in pair):
            raise UsageError(
                f"{self._path}: [container.paths] must map absolute folders to absolute folders.",
                hint='write "/workspace" = "/Users/me/work"',
            )
        return ContainerSettings(sources, **values, paths={_bare(here): _bare(there) for here, there in paths.items()})

    def _table(self, name: str) -> dict[str, Any]:
        table = self._tables.get(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{self._path}: [{name}] must be a table.", hint=_PAGE)
        return dict(table)

    def _load(
        self, settings: tuple[Setting, ...], name: str, table: dict[str, Any], env: Mapping[str, str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Values and sources: defaults, then the table, then the environment."""
        known = {setting.name: setting for setting in settings}
        values: dict[str, Any] = {}
        sources = dict.fromkeys(known, "default")
        for key, value in table.items():
            if key not in known:
                raise UsageError(
                    f"{self._path}: no setting named {key!r} in [{name}].", hint=f"known are: {', '.join(known)}"
                )
            values[key] = known[key].checked(value, f"{self._path}: {key}")
            sources[key] = self._path
        for setting in settings:
            text = env.get(setting.env, "")
            if text:
                values[setting.name] = setting.from_env(text)
                sources[setting.name] = f"environment ({setting.env})"
        return values, sources


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _bare(folder: str) -> str:
    return folder.rstrip("/") or "/"


def _choice(kind: type[StrEnum], value: str, where: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{where}: {value!r} is none of {', '.join(kind)}.", hint=_PAGE) from None


def _parsed(text: str, default: str | int | bool) -> str | int | bool:
    """`text` as the type of `default`; unchanged where it isn't one, for the check to refuse."""
    if isinstance(default, bool):
        lowered = text.strip().lower()
        return lowered in _TRUE if lowered in _TRUE | _FALSE else text
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            return text
    return text
