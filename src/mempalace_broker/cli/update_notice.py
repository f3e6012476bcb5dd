"""Tells a person at a terminal that a newer version is available: after a command, and at most once a day.

Commands that agents run never ask: without a terminal, or with a variable that coding agents set for their commands,
nothing is looked up and nothing is printed. The index is asked in the background; an answer that takes longer than
`WAIT_S` is ignored. Nothing is said of a broker that was installed from a checkout or a file: the index may not have
its name, or have it for another package.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BrokerError
from ..system.private import updates_file
from ..system.program_folders import numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..system.private import PrivateFile

VARIABLE = "MEMPALACE_BROKER_UPDATE_NOTICE"
WAIT_S = 1.0
DAY_S = 86_400.0
_INDEX = "https://pypi.org/simple/{}/"
_JSON = "application/vnd.pypi.simple.v1+json"
_MOST = 4 << 20  # bytes of an index page
_NOTE_LIMIT = 1 << 12
_FINAL = re.compile(r"\d+(\.\d+){0,4}")  # no pre-release, and nothing that a terminal would obey
_COMMANDS = frozenset(
    {"status", "doctor", "setup", "service", "backup", "model", "demo", "selftest", "stop", "restart"}
)
_AGENTS = (
    *("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CODEX_SANDBOX", "CODEX_THREAD_ID", "CURSOR_AGENT", "CURSOR_TRACE_ID"),
    *("GEMINI_CLI", "QWEN_CODE", "OPENCODE", "PI_CODING_AGENT", "COPILOT_AGENT_SESSION_ID", "CLINE_ACTIVE", "AI_AGENT"),
    *("CI", "NO_UPDATE_NOTIFIER"),
)


def notify(command: str | None, argv: list[str], env: Mapping[str, str]) -> None:
    """Say on stderr which newer versions are available, if a person is there to read it."""
    if command not in _COMMANDS or "--json" in argv or not _on_a_terminal():
        return
    if any(env.get(name) for name in _AGENTS):
        return
    try:
        lines = list(_lines(env))
    except (BrokerError, OSError):  # `doctor` says what is wrong
        return
    for line in lines:
        print(line, file=sys.stderr)


def _on_a_terminal() -> bool:
    return sys.stdout.isatty() and sys.stderr.isatty()


def _lines(env: Mapping[str, str]) -> Iterator[str]:
    from ..route.engine_version import expected_engine
    from ..settings_files import PrivateSettings
    from ..system.environment import known_environment

    if not PrivateSettings.read(env).broker(known_environment(env), "").update_notice:
        return
    engine = expected_engine(env)
    here = {"mempalace-broker": (__version__, sys.executable)} if _is_from_index() else {}
    here["mempalace"] = (engine.version or "", engine.interpreter)
    newest = _known(updates_file(env), list(here))
    told = False
    for name, (version, interpreter) in here.items():
        found = newest.get(name)
        if version and isinstance(found, str) and _FINAL.fullmatch(found) and numbers_of(found) > numbers_of(version):
            yield f"{name} {found} is available, this is {version}: {_upgrade(name, interpreter)}"
            told = True
    if told:
        yield f"(to turn this off: update_notice = false in config.toml, or {VARIABLE}=0)"


def _is_from_index() -> bool:
    """Return whether a package index has us: installers note every other origin beside the package (PEP 610)."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution("mempalace-broker").read_text("direct_url.json") is None
    except PackageNotFoundError:
        return False


def _upgrade(name: str, interpreter: str) -> str:
    """Return the command that upgrades the package in that interpreter's environment."""
    tool = re.search(r"/(?:uv/tools|pipx/venvs)/([\w.-]+)/", interpreter)
    if tool is None:
        return f"{interpreter} -m pip install --upgrade {name}"
    return f"{'uv tool' if '/uv/tools/' in interpreter else 'pipx'} upgrade {tool[1]}"


def _known(file: PrivateFile, names: list[str]) -> dict[str, Any]:
    """Return the newest versions as found within the last day; otherwise ask for them now."""
    note, now = file.read_object(_NOTE_LIMIT), time.time()
    asked_at = note.get("asked_at")
    if isinstance(asked_at, int | float) and 0 <= now - asked_at < DAY_S:
        return note
    found: dict[str, Any] = {**note, "asked_at": now}
    file.write(json.dumps(found).encode())  # first, so that the next command does not ask an index that hangs
    asking = threading.Thread(target=_ask, args=(names, found), daemon=True)
    asking.start()
    asking.join(WAIT_S)
    if not asking.is_alive():
        file.write(json.dumps(found).encode())
    return dict(found)


def _ask(names: list[str], found: dict[str, Any]) -> None:
    """Put the newest final version of each package into `found`, unless the index has none."""
    for name in names:
        if version := _newest(name):
            found[name] = version


def _newest(name: str) -> str:
    import urllib.request
    from http.client import HTTPException

    request = urllib.request.Request(_INDEX.format(name), headers={"Accept": _JSON})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            said = json.loads(answer.read(_MOST))
    except (OSError, HTTPException, ValueError):
        return ""
    versions = said.get("versions") if isinstance(said, dict) else None
    final = [one for one in versions or [] if isinstance(one, str) and _FINAL.fullmatch(one)]
    return max(final, key=numbers_of, default="")
