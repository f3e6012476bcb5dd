"""Settings that must not depend on who starts the broker: broker.toml, with environment variables over it.

    [broker]
    engine = "/path/to/python"     # or a mempalace-mcp
    idle_s = 900

Every value knows where it came from; `mempalace-broker status` shows it. Documented in docs/settings.md, which a test
holds against this table.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in broker.toml, its environment variable, default, lower bound, and what it means."""

    name: str
    env: str
    default: str | int | bool
    minimum: int
    what: str


SETTINGS = (
    Setting("engine", "MEMPALACE_BROKER_ENGINE", "", 0, "interpreter with mempalace, or a mempalace-mcp"),
    Setting("idle_s", "MEMPALACE_BROKER_IDLE_S", 900, 0, "exit after this many idle seconds; 0 = never"),
    Setting(
        "timeout_ms",
        "MEMPALACE_MCP_TIMEOUT_MS",
        60_000,
        0,
        "limit of a call's wait, and of its run; 0 = none",
    ),
    Setting("init_timeout_ms", "MEMPALACE_MCP_INIT_TIMEOUT_MS", 120_000, 0, "limit of an engine's start; 0 = none"),
    Setting("tune", "MEMPALACE_BROKER_TUNE", True, 0, "in-memory tune-ups of the engine"),
    Setting("session_calls", "MEMPALACE_BROKER_SESSION_CALLS", 20_000, 1, "calls that may wait per session"),
    Setting(
        "client_stall_s",
        "MEMPALACE_BROKER_CLIENT_STALL_S",
        60,
        1,
        "drop a client that accepts no byte for so long",
    ),
    Setting("tcp", "MEMPALACE_BROKER_TCP", "", 0, "also listen there: docker, an address, an interface, or any"),
    Setting("tcp_port", "MEMPALACE_BROKER_TCP_PORT", 0, 0, "port of that listener; 0 = the broker chooses"),
    Setting("drain_s", "MEMPALACE_BROKER_DRAIN_S", 10, 1, "seconds for running calls when the broker stops"),
    Setting("log_bytes", "MEMPALACE_BROKER_LOG_BYTES", 4_000_000, 10_000, "size of broker.log; one older is kept"),
    Setting("log_level", "MEMPALACE_BROKER_LOG_LEVEL", "info", 0, "debug, info, warning or error"),
)
# of table [container]: read by clients for whom the palace belongs to another kernel
CONTAINER_SETTINGS = (
    Setting("ssh_host", "MEMPALACE_BROKER_SSH_HOST", "", 0, "host of the palace, as ssh's configuration names it"),
    Setting("ssh_config", "MEMPALACE_BROKER_SSH_CONFIG", "", 0, "ssh's configuration file"),
    Setting("ssh_command", "MEMPALACE_BROKER_SSH_COMMAND", "mempalace-broker", 0, "the broker's command on that host"),
    Setting("direct", "MEMPALACE_BROKER_DIRECT", "auto", 0, "open the palace from here: auto, always or never"),
)
DIRECT = ("auto", "always", "never")
PATHS = "paths"  # the one entry of [container] that is a table: {prefix here: prefix there}
_MAX_INTERFACE = 15  # IFNAMSIZ without its zero
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
LOG_LEVELS = ("debug", "info", "warning", "error")
TCP_DOCKER = "docker"  # where containers of this machine find the host
TCP_ANY = "any"  # every address of this machine: only by that word
MAX_PORT = 65535
_CHOICES = {"log_level": LOG_LEVELS, "direct": DIRECT}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one broker; `values` and `sources` by name. Durations as properties in seconds."""

    values: Mapping[str, str | int | bool]
    sources: Mapping[str, str]

    def text(self, name: str) -> str:
        """A setting that is text."""
        return str(self.values[name])

    def number(self, name: str) -> int:
        """A setting that is a whole number."""
        return int(self.values[name])

    @property
    def call_s(self) -> float:
        """Seconds a call may wait, and may run; 0 = no limit."""
        return self.number("timeout_ms") / 1000

    @property
    def init_s(self) -> float:
        """Seconds an engine may take to be ready; 0 = no limit."""
        return self.number("init_timeout_ms") / 1000

    @property
    def tune(self) -> bool:
        """Whether tune-ups are wanted."""
        return bool(self.values["tune"])

    def as_json(self) -> dict[str, dict[str, Any]]:
        """For status: {name: {"value", "source"}}."""
        return {name: {"value": value, "source": self.sources[name]} for name, value in self.values.items()}


def load_settings(toml_text: str | None, env: Mapping[str, str], *, toml_path: str = "broker.toml") -> Settings:
    """Defaults, then broker.toml, then the environment.

    Args:
        toml_text: the file's content, or None where there is none.
        env: environment variables.
        toml_path: named in errors.

    Raises:
        UsageError: an unknown name, a wrong type, or a value out of range; names the place and what is allowed.
    """
    return _load(SETTINGS, "broker", _table(toml_text, "broker", toml_path), env, toml_path)


def load_container(
    toml_text: str | None, env: Mapping[str, str], *, toml_path: str = "broker.toml"
) -> tuple[Settings, dict[str, str]]:
    """The settings of table [container], and its path table {prefix here: prefix there}, both without trailing "/".

    Arguments and errors as `load_settings`.
    """
    table = _table(toml_text, "container", toml_path)
    paths = table.pop(PATHS, {})
    settings = _load(CONTAINER_SETTINGS, "container", table, env, toml_path)
    if not isinstance(paths, dict) or not all(_is_folder(word) for pair in paths.items() for word in pair):
        raise UsageError(
            f"{toml_path}: [container.{PATHS}] must map absolute folders to absolute folders.",
            hint='write "/workspace" = "/Users/me/work"',
        )
    return settings, {here.rstrip("/") or "/": there.rstrip("/") or "/" for here, there in paths.items()}


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _load(
    known_settings: tuple[Setting, ...], name: str, table: dict[str, Any], env: Mapping[str, str], toml_path: str
) -> Settings:
    """Defaults, then the table, then the environment."""
    values: dict[str, str | int | bool] = {s.name: s.default for s in known_settings}
    sources = {s.name: "default" for s in known_settings}
    known = {s.name: s for s in known_settings}
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"{toml_path}: no setting named {key!r} in [{name}].", hint=f"known are: {', '.join(known)}"
            )
        values[key] = _checked(known[key], value, f"{toml_path}: {key}")
        sources[key] = toml_path
    for setting in known_settings:
        text = env.get(setting.env, "")
        if text:
            values[setting.name] = _checked(setting, _from_text(setting, text), setting.env)
            sources[setting.name] = f"environment ({setting.env})"
    return Settings(values, sources)


def _table(toml_text: str | None, name: str, toml_path: str) -> dict[str, Any]:
    if toml_text is None:
        return {}
    try:
        table = tomllib.loads(toml_text).get(name, {})
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"{toml_path} is not valid TOML: {exc}.", hint=f"correct {toml_path}") from exc
    if not isinstance(table, dict):
        raise UsageError(f"{toml_path}: [{name}] must be a table.", hint="see docs/settings.md")
    return table


def _from_text(setting: Setting, text: str) -> str | int | bool:
    if isinstance(setting.default, bool):
        lowered = text.strip().lower()
        if lowered in _TRUE | _FALSE:
            return lowered in _TRUE
    elif isinstance(setting.default, int):
        try:
            return int(text)
        except ValueError:
            return text
    return text


def _checked(setting: Setting, value: Any, where: str) -> str | int | bool:
    wanted = type(setting.default)
    if type(value) is not wanted:
        names = {bool: "true or false", int: "a whole number", str: "text"}
        raise UsageError(f"{where}: {value!r} is not {names[wanted]}.", hint="see docs/settings.md")
    if isinstance(value, int) and value < setting.minimum:
        raise UsageError(f"{where}: {value} is below {setting.minimum}.", hint="see docs/settings.md")
    choices = _CHOICES.get(setting.name)
    if choices and value not in choices:
        raise UsageError(f"{where}: {value!r} is none of {', '.join(choices)}.", hint="see docs/settings.md")
    if setting.name == "tcp_port" and isinstance(value, int) and value > MAX_PORT:
        raise UsageError(f"{where}: {value} is above {MAX_PORT}.", hint="see docs/settings.md")
    if setting.name == "tcp":
        value = check_tcp(str(value), where)
    result: str | int | bool = value
    return result


def check_tcp(value: str, where: str) -> str:
    """Where to listen, as `broker.tcpbind.find_address` takes it: "", TCP_DOCKER, TCP_ANY, an address, an interface.

    Raises:
        UsageError: it means every address of the machine without saying so, or it can't be any of these.
    """
    name = value.strip().removeprefix("[").removesuffix("]")
    if name in ("", TCP_DOCKER, TCP_ANY):
        return name
    known = "write docker, 127.0.0.1, another address or interface of this machine, or any (then all who reach it can)"
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "*" or (address is not None and int(getattr(address, "ipv4_mapped", None) or address) == 0):
        raise UsageError(f"{where}: {value!r} would listen on every address of this machine.", hint=known)
    if address is not None:
        if address.is_multicast or name == "255.255.255.255":
            raise UsageError(f"{where}: {value!r} is no address that one can listen on.", hint=known)
        return str(address)
    if len(name) > _MAX_INTERFACE or not _INTERFACE.fullmatch(name):
        raise UsageError(f"{where}: {value!r} is neither an address nor an interface.", hint=known)
    return name
