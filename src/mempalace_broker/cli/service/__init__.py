"""`service`: have the system's service manager run a broker from login on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ...errors import EXIT_NOT_RUNNING, EXIT_OK, BrokerError
from ...system.private import private_home
from ..context_options import palace_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...system.paths import Context
    from .managers import ServiceManager
    from .units import ServiceSpec

NAME = "mempalace-broker"
_KEY_DIGITS = 8
_NOT_KEPT = ("USER", "LOGNAME", "LANG", "TMPDIR")  # of the session that installs, not of the service
_IDLE = "MEMPALACE_BROKER_IDLE_S"

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of words.")


@click.group("service", short_help="Have a broker run from login on.")
def command_service() -> None:
    """Have systemd (Linux) or launchd (macOS) run the broker from login on.

    Agents don't need it: their mp-shim starts a broker when there is none, and finds this one as any other. It is for
    clients that can't start one (over TCP or HTTP), and to make the host's broker the owner, whoever comes first.
    """


@command_service.command("install")
@click.option("--dry-run", is_flag=True, help="Print the file that it would write, and change nothing.")
@JSON_OPTION
@palace_options
def service_install(context: Context, dry_run: bool, as_json: bool) -> int:
    """Write a service of your own user and start it. Doing it again changes nothing, or updates it.

    The service runs `mempalace-broker run --standby`: where an agent has started a broker before, it waits until that
    one leaves. It never leaves for idleness. PATH and the variables of mempalace and of the broker are those of this
    terminal.

    \b
    Example:
      mempalace-broker service install --dry-run
      mempalace-broker service install

    \b
    Exit codes: 0 it is installed and runs, 1 the service manager refused, 73 the file can't
    be written, 78 the palace is invalid.
    """
    manager = manager_for(context)
    spec = spec_for(context)
    if dry_run:
        content = manager.content(spec).decode("utf-8", "surrogateescape")
        click.echo(json.dumps({"file": manager.file, "content": content}) if as_json else content, nl=as_json)
        return EXIT_OK
    done = manager.install(spec)
    if as_json:
        click.echo(json.dumps({"done": done, "service": manager.name, "file": manager.file}))
        return EXIT_OK
    click.echo(f"{done}: {manager.file}, service {manager.name} of {manager.kind}.")
    if manager.lingers is False:
        click.echo("It runs while you are logged in. To have it run always: loginctl enable-linger")
    return EXIT_OK


@command_service.command("uninstall")
@JSON_OPTION
@palace_options
def service_uninstall(context: Context, as_json: bool) -> int:
    """Stop the service and remove its file. Agents go on: their mp-shim starts a broker when one is needed.

    \b
    Example:
      mempalace-broker service uninstall

    \b
    Exit codes: 0 it is gone, or was not there; 1 the service manager refused.
    """
    manager = manager_for(context)
    was = manager.uninstall()
    if as_json:
        click.echo(json.dumps({"was_installed": was, "service": manager.name, "file": manager.file}))
    else:
        click.echo(f"removed: {manager.file}" if was else f"there is no service {manager.name}.")
    return EXIT_OK


@command_service.command("status")
@JSON_OPTION
@palace_options
def service_status(context: Context, as_json: bool) -> int:
    """Show whether the service is installed and runs, and whether its broker is the one that serves.

    \b
    Example:
      mempalace-broker service status

    \b
    Exit codes: 0 it runs, 3 it does not.
    """
    from ...system.lock import is_held
    from ...system.lock_notes import read_holder

    manager = manager_for(context)
    state = manager.state()
    owner = read_holder(context.files.owner_lock) if is_held(context.files.owner_lock) else None
    serving = owner.pid if owner is not None else None
    if as_json:
        found = {"service": manager.name, "manager": manager.kind, "file": manager.file, **state._asdict()}
        click.echo(json.dumps({**found, "serving_pid": serving, "lingers": manager.lingers}))
    else:
        click.echo(f"service     {manager.name} of {manager.kind}: {_words(state.running, serving, state.pid)}")
        click.echo(f"file        {manager.file}" + ("" if state.installed else " (not there)"))
        click.echo(f"at login    {'yes' if state.enabled else 'no'}")
    return EXIT_OK if state.running else EXIT_NOT_RUNNING


def _words(running: bool, serving: int | None, pid: int) -> str:
    if not running:
        return "not running"
    if serving in (None, pid):
        return f"runs (pid {pid})"
    return f"stands by (pid {pid}): another broker serves (pid {serving})"


def manager_for(context: Context) -> ServiceManager:
    """The manager of this system, for the service of this palace. It looks in the home of the password file."""
    from ...system.kernel import MACOS
    from ...system.paths import home_of
    from .managers import Launchd, Systemd

    return (Launchd if MACOS else Systemd)(_name(context), private_home() or home_of(context.env))


def _name(context: Context) -> str:
    """One name for the palace that this user has by default, and one for each other palace."""
    from ...route.discover import meant_palace
    from ...system.private import palace_key

    try:
        default = meant_palace(context.env).path
    except BrokerError:
        default = ""
    path = context.identity.path
    return NAME if path == default else f"{NAME}-{palace_key(path)[:_KEY_DIGITS]}"


def spec_for(context: Context) -> ServiceSpec:
    """What the service runs: the palace as it was named here, the environment of a broker that is started here.

    Raises:
        BrokerError: this program is not installed for good.
    """
    from ..programs import own_program
    from .units import ServiceSpec

    identity = context.identity
    argv = [own_program("mempalace-broker"), "run", "--standby", *identity.options]
    return ServiceSpec(_name(context), identity.path, tuple(argv), _environment(context.env))


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    from ...system.environment import LEFT_OUT, PROXIES, known_environment

    left_out = {*_NOT_KEPT, *PROXIES, LEFT_OUT}  # a proxy's address may hold a password
    kept = {name: value for name, value in known_environment(env).items() if name not in left_out}
    if kept.get("HOME") == private_home():
        del kept["HOME"]
    return {**kept, _IDLE: "0"}
