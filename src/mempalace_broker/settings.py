"""The settings: their names, types, defaults and bounds. `settings_files` reads them.

Every value knows where it came from; `mempalace-broker status` shows it. Documented in docs/settings.md; a test
compares that page with the fields below.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .errors import UsageError
from .protocol.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PORT = 65535
TCP_DOCKER = "docker"  # where containers of this machine find the host
TCP_ANY = "any"  # every address of this machine: only by that word
_MAX_NUMBER = (1 << 31) - 1  # of any setting: 68 years, 24 days in ms, 2 GB
_MAX_TEXT = 4096  # characters of any setting
_YEAR_H = 366 * 24
_SHOWN = 80  # characters of a bad value that a message quotes
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


class LogFormat(StrEnum):
    """The format of broker.log; JSON is one object per line."""

    TEXT = "text"
    JSON = "json"


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
        raise UsageError(f"{where}: {shown(value)} would listen on every address of this machine.", hint=hint)
    if address is not None:
        if address.is_multicast or name == "255.255.255.255":
            raise UsageError(f"{where}: {shown(value)} is not an address to listen on.", hint=hint)
        return str(address)
    if len(name) > _MAX_INTERFACE or not _INTERFACE.fullmatch(name):
        raise UsageError(f"{where}: {shown(value)} is neither an address nor an interface.", hint=hint)
    return name


def _check_folder(value: str, where: str) -> str:
    """Return the folder; raise UsageError if it would depend on who starts the broker."""
    if value and not value.startswith(("/", "~/")):
        raise UsageError(f"{where}: {shown(value)} is not an absolute path.", hint="begin it with / or ~/")
    return value


_Value = TypeVar("_Value", str, int, bool, LogLevel, LogFormat, DirectMode)


def _setting(
    env: str,
    default: _Value,
    *,
    minimum: int = 0,
    maximum: int = _MAX_NUMBER,
    check: Callable[[str, str], str] | None = None,
    shared: bool = False,
) -> _Value:
    """Declare a field that config.toml and the variable `env` may set; `shared`: broker.toml in the state root, too."""
    result: _Value = field(
        default=default,
        metadata={"env": env, "minimum": minimum, "maximum": maximum, "check": check, "shared": shared},
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
    """Tables [broker] and [palaces."/path"]: the settings of one broker.

    `env` is their table {variable: value} for the engine: passwords and addresses of its storage. Never shown.
    `guest_folders` are real folders that every guest may name in a call.
    """

    # interpreter with mempalace, or a mempalace-mcp; "" = found by itself
    engine: str = _setting("MEMPALACE_BROKER_ENGINE", "")
    # exit after this many idle seconds; 0 = never
    idle_s: int = _setting("MEMPALACE_BROKER_IDLE_S", 900)
    # limit of a call's wait, and of its run; 0 = none
    timeout_ms: int = _setting("MEMPALACE_MCP_TIMEOUT_MS", 60_000)
    # limit of an engine's start; 0 = none
    init_timeout_ms: int = _setting("MEMPALACE_MCP_INIT_TIMEOUT_MS", 120_000)
    # let go of the palace after this many seconds without a call; 0 = never
    park_s: int = _setting("MEMPALACE_BROKER_PARK_S", 1)
    # in-memory tune-ups of the engine
    tune: bool = _setting("MEMPALACE_BROKER_TUNE", True)
    # answer a write only once the drive itself has it
    power_safe: bool = _setting("MEMPALACE_BROKER_POWER_SAFE", False)
    # calls that may wait per session
    session_calls: int = _setting("MEMPALACE_BROKER_SESSION_CALLS", 20_000, minimum=1)
    # drop a client that accepts no byte for this long
    client_stall_s: int = _setting("MEMPALACE_BROKER_CLIENT_STALL_S", 60, minimum=1)
    # also listen there, see `check_tcp`
    tcp: str = _setting("MEMPALACE_BROKER_TCP", "", check=check_tcp)
    # port of that listener; 0 = the broker chooses
    tcp_port: int = _setting("MEMPALACE_BROKER_TCP_PORT", 0, maximum=MAX_PORT)
    # MCP over HTTP on 127.0.0.1
    http: bool = _setting("MEMPALACE_BROKER_HTTP", True)
    # its port; 0 = the broker chooses
    http_port: int = _setting("MEMPALACE_BROKER_HTTP_PORT", 0, maximum=MAX_PORT)
    # seconds for running calls when the broker stops
    drain_s: int = _setting("MEMPALACE_BROKER_DRAIN_S", 10, minimum=1)
    # hours from one scheduled snapshot to the next; 0 = none
    backup_every_h: int = _setting("MEMPALACE_BROKER_BACKUP_EVERY_H", 0, maximum=_YEAR_H)
    # how many scheduled snapshots are kept
    backup_keep: int = _setting("MEMPALACE_BROKER_BACKUP_KEEP", 7, minimum=1)
    # their folder; "" = backups in the private one
    backup_dir: str = _setting("MEMPALACE_BROKER_BACKUP_DIR", "", check=_check_folder)
    # tell people at a terminal of newer versions
    update_notice: bool = _setting("MEMPALACE_BROKER_UPDATE_NOTICE", True)
    # size of broker.log; one older file is kept
    log_bytes: int = _setting("MEMPALACE_BROKER_LOG_BYTES", 4_000_000, minimum=10_000)
    log_level: LogLevel = _setting("MEMPALACE_BROKER_LOG_LEVEL", LogLevel.INFO)  # noqa: RUF009 - a field, not a value
    log_format: LogFormat = _setting("MEMPALACE_BROKER_LOG_FORMAT", LogFormat.TEXT)  # noqa: RUF009 - as above
    env: dict[str, str] = field(default_factory=dict, repr=False)
    guest_folders: tuple[str, ...] = ()

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
    ssh_host: str = _setting("MEMPALACE_BROKER_SSH_HOST", "", shared=True)
    # ssh's configuration file
    ssh_config: str = _setting("MEMPALACE_BROKER_SSH_CONFIG", "")
    # the broker's command on that host
    ssh_command: str = _setting("MEMPALACE_BROKER_SSH_COMMAND", "mempalace-broker")
    # whether the palace may be opened from here
    direct: DirectMode = _setting("MEMPALACE_BROKER_DIRECT", DirectMode.AUTO, shared=True)  # noqa: RUF009 - as above
    paths: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the files, its environment variable, default and bounds."""

    name: str
    env: str
    default: str | int | bool
    minimum: int
    maximum: int
    check: Callable[[str, str], str] | None
    shared: bool

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
            raise UsageError(f"{where}: {shown(value)} is not {names.get(type(self.default), 'text')}.", hint=_PAGE)
        if isinstance(value, int) and value < self.minimum:
            raise UsageError(f"{where}: {shown(value)} is below {self.minimum}.", hint=_PAGE)
        if isinstance(value, int) and value > self.maximum:
            raise UsageError(f"{where}: {shown(value)} is above {self.maximum}.", hint=_PAGE)
        if isinstance(value, str) and (len(value) > _MAX_TEXT or "\0" in value):
            raise UsageError(f"{where}: {shown(value)} is too long, or has a NUL.", hint=_PAGE)
        return self.check(value, where) if self.check and isinstance(value, str) else value


def shown(value: object) -> str:
    """A bad value for a message: quoted, printable, short. A number of 100,000 digits can't even be written out."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str | int | float):
        return printable(repr(value), _SHOWN)
    return f"a {type(value).__name__}"


def settings_of(table: type[_Sourced]) -> tuple[Setting, ...]:
    """The settings that `table`'s fields declare."""
    return tuple(
        Setting(entry.name, default=cast("str | int | bool", entry.default), **entry.metadata)
        for entry in dataclasses.fields(table)
        if entry.metadata
    )


def _choice(kind: type[StrEnum], value: str, where: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{where}: {shown(value)} is none of {', '.join(kind)}.", hint=_PAGE) from None


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
