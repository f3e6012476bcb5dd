"""The agents of this machine, and changing their files: with the same mode, through links, with a backup beside.

Containers may write where mempalace's own file is, so no link is followed there: it would copy any file of the user's
into the backup, and change it.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

from ...errors import BrokerError, file_hint
from ...system.find_palace import config_dir
from ...system.program_folders import tool_folders
from ...system.shared_files import SharedFolder, make_folders, read_followed, replace_file
from ..programs import run_program
from .machine.agents import HOOKS
from .machine.plan import Outcome, plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .machine.agents import Agent
    from .machine.plan import Plan

BACKUP = ".before-mempalace-broker"
_MAX_FILE = 64 << 20


class Configuration(NamedTuple):
    """An agent of this machine. `text`: of its file, None where that is not there. `program`: its command, or ""."""

    agent: Agent
    file: str
    text: str | None
    program: str
    second: bool
    problem: str = ""

    @property
    def backup(self) -> str:
        """Where the file is kept as it was before."""
        return self.file + BACKUP

    @property
    def has_backup(self) -> bool:
        """Whether anything has the backup's name, be it a link that leads nowhere."""
        return os.path.lexists(self.backup)

    def backup_text(self) -> str | None:
        """What is in the backup, None where it can't be read."""
        try:
            return _read(self.backup, self.agent)
        except (OSError, UnicodeDecodeError):
            return None


def find_configurations(agents: Sequence[Agent], env: Mapping[str, str], home: str) -> list[Configuration]:
    """Those of `agents` that are on this machine."""
    config = env.get("XDG_CONFIG_HOME", "")
    config = config if os.path.isabs(config) else os.path.join(home, ".config")
    support = os.path.join(home, "Library", "Application Support") if sys.platform == "darwin" else config
    found = (_find(agent, env, home, {"config": config, "support": support}) for agent in agents)
    return [configuration for configuration in found if configuration is not None]


def find_hooks(env: Mapping[str, str], home: str) -> Configuration | None:
    """Find mempalace's own config.json; None if there is none, because mempalace itself has to choose its place."""
    file = os.path.join(config_dir(env, home), "config.json")
    try:
        text = _read(file, HOOKS)
    except (OSError, UnicodeDecodeError) as exc:
        return Configuration(HOOKS, file, None, "", False, f"it can't be read: {exc}.")
    return None if text is None else Configuration(HOOKS, file, text, "", False)


def _find(agent: Agent, env: Mapping[str, str], home: str, places: dict[str, str]) -> Configuration | None:
    files = [os.path.join(home, file.format(**places)) for file in agent.files]
    moved = env.get(agent.home_variable, "") if agent.home_variable else ""
    if os.path.isabs(moved):
        files = [os.path.join(moved, os.path.basename(files[0]))]
    folders = [env.get("PATH", ""), *tool_folders("", env)]
    program = shutil.which(agent.program, path=os.pathsep.join(folders)) or "" if agent.program else ""
    file = next((file for file in files if os.path.exists(file)), files[0])
    folder = os.path.dirname(file)
    if not (os.path.exists(file) or program or (folder != home and os.path.isdir(folder))):
        return None
    try:
        text = _read(file, agent)
    except (OSError, UnicodeDecodeError) as exc:
        return Configuration(agent, file, None, program, False, f"it can't be read: {exc}.")
    return Configuration(agent, file, text, program, bool(agent.second) and _is_second(agent, program))


def _read(file: str, agent: Agent) -> str | None:
    try:
        data = _read_shared(file) if agent is HOOKS else read_followed(file, _MAX_FILE)
    except FileNotFoundError:
        return None
    return None if data is None else data.decode("utf-8")


def _read_shared(file: str) -> bytes | None:
    folder, name = os.path.split(file)
    with SharedFolder.open(os.path.realpath(folder)) as opened:
        return opened.read(name, _MAX_FILE)


def _is_second(agent: Agent, program: str) -> bool:
    return bool(program) and run_program([program, "--version"]).stdout.strip().lstrip("v").startswith(agent.second)


def change(found: Configuration, wanted: Plan, words: list[str]) -> None:
    """Make it so.

    Raises:
        BrokerError: that failed, or the file has changed since it was read; it is as it was.
    """
    try:
        if _read(found.file, found.agent) != found.text:
            raise BrokerError(f"{found.file} was changed a moment ago by another program.", hint="run this once more")
        if wanted.outcome in (Outcome.REMOVE, Outcome.RESTORE):
            _write(found, wanted.after)
            if found.has_backup and (os.path.islink(found.backup) or not os.path.isdir(found.backup)):
                os.unlink(found.backup)
            return
        kept = wanted.outcome is Outcome.UPDATE and os.path.exists(found.backup)  # it is from before we came
        if found.text is not None and not kept:
            replace_file(found.backup, found.text.encode("utf-8"), os.stat(_place(found)).st_mode & 0o777)
        if wanted.outcome is Outcome.ADD and found.program and found.agent.add:
            _add(found, words)
        else:
            make_folders(os.path.dirname(found.file))
            _write(found, wanted.after)
    except (OSError, UnicodeDecodeError) as exc:
        raise BrokerError(
            f"cannot change {found.file}: {exc}.", hint=file_hint(exc, otherwise="change it by hand")
        ) from exc


def _place(found: Configuration) -> str:
    """Where the file itself is."""
    return found.file if found.agent is HOOKS else os.path.realpath(found.file)


def _write(found: Configuration, text: str | None) -> None:
    real = _place(found)
    if text is None:
        os.unlink(real)
        return
    mode = os.stat(real).st_mode & 0o777 if os.path.exists(real) else 0o600
    replace_file(real, text.encode("utf-8"), mode)


def _add(found: Configuration, words: list[str]) -> None:
    """Have the agent's own command write the entry."""
    argv = [found.program, *found.agent.add, *words]
    done = run_program(argv)
    if plan(found.agent, _read(found.file, found.agent), words).outcome is not Outcome.NOTHING:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BrokerError(
            f"`{' '.join(argv[:4])} ...` did not add the server ({said[-1] if said else done.returncode}).",
            hint=f"look at {found.file}",
        )
