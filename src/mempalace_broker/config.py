"""Settings that must not depend on who starts the broker: broker.toml, with environment variables over it.

    [broker]
    engine = "/path/to/python"     # or a mempalace-mcp
    idle_s = 900

Every value knows where it came from; `mempalace-broker status` shows it. Documented in docs/settings.md, which a test
holds against this table.
"""

from __future__ import annotations

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
    Setting("drain_s", "MEMPALACE_BROKER_DRAIN_S", 10, 1, "seconds for running calls when the broker stops"),
    Setting("log_bytes", "MEMPALACE_BROKER_LOG_BYTES", 4_000_000, 10_000, "size of broker.log; one older is kept"),
    Setting("log_level", "MEMPALACE_BROKER_LOG_LEVEL", "info", 0, "debug, info, warning or error"),
)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
LOG_LEVELS = ("debug", "info", "warning", "error")


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
        return {s.name: {"value": self.values[s.name], "source": self.sources[s.name]} for s in SETTINGS}


def load_settings(toml_text: str | None, env: Mapping[str, str], *, toml_path: str = "broker.toml") -> Settings:
    """Defaults, then broker.toml, then the environment.

    Args:
        toml_text: the file's content, or None where there is none.
        env: environment variables.
        toml_path: named in errors.

    Raises:
        UsageError: an unknown name, a wrong type, or a value out of range; names the place and what is allowed.
    """
    values: dict[str, str | int | bool] = {s.name: s.default for s in SETTINGS}
    sources = {s.name: "default" for s in SETTINGS}
    table = _table(toml_text, toml_path)
    known = {s.name: s for s in SETTINGS}
    for name, value in table.items():
        if name not in known:
            raise UsageError(
                f"{toml_path}: no setting named {name!r} in [broker].", mend=f"known are: {', '.join(known)}"
            )
        values[name] = _checked(known[name], value, f"{toml_path}: {name}")
        sources[name] = toml_path
    for setting in SETTINGS:
        text = env.get(setting.env, "")
        if text:
            values[setting.name] = _checked(setting, _from_text(setting, text), setting.env)
            sources[setting.name] = f"environment ({setting.env})"
    return Settings(values, sources)


def _table(toml_text: str | None, toml_path: str) -> dict[str, Any]:
    if toml_text is None:
        return {}
    try:
        table = tomllib.loads(toml_text).get("broker", {})
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"{toml_path} is not valid TOML: {exc}.", mend=f"correct {toml_path}") from exc
    if not isinstance(table, dict):
        raise UsageError(f"{toml_path}: [broker] must be a table.", mend="see docs/settings.md")
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
        raise UsageError(f"{where}: {value!r} is not {names[wanted]}.", mend="see docs/settings.md")
    if isinstance(value, int) and value < setting.minimum:
        raise UsageError(f"{where}: {value} is below {setting.minimum}.", mend="see docs/settings.md")
    if setting.name == "log_level" and value not in LOG_LEVELS:
        raise UsageError(f"{where}: {value!r} is none of {', '.join(LOG_LEVELS)}.", mend="see docs/settings.md")
    result: str | int | bool = value
    return result
