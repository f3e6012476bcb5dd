"""The command `mempalace-broker` itself; it imports a command when it is run or listed."""

from __future__ import annotations

import importlib
import os
import sys

import click

from .. import __version__
from ..errors import BrokerError
from ..system.startup import interrupts_raise

# command -> the module that has a click command of that name in `command_<name>`
_COMMANDS = {
    "demo": "demo",
    "selftest": "selftest",
    "run": "serve",
    "ensure": "serve",
    "dial-stdio": "dial_stdio",
    "ssh-command": "ssh_command",
    "status": "status",
    "top": "top",
    "open": "open",
    "stop": "stop",
    "restart": "stop",
    "logs": "logs",
    "doctor": "doctor",
    "exclusive": "exclusive",
    "backup": "backup",
    "move-to": "move_to",
    "take-over": "take_over",
    "model": "model",
    "token": "token",
    "service": "service",
    "setup": "setup",
    "bugreport": "bugreport",
    "completion": "completion",
}

_EPILOG = """
\b
First steps:
  mempalace-broker demo          see it work, in a directory of its own
  mempalace-broker doctor        find what is wrong on this machine
  mempalace-broker setup         put mp-shim where your agents' configs say mempalace-mcp

\b
Exit codes: 0 fine, 1 failure, 2 wrong usage, 3 not running, 4 findings, 69 no broker
reachable, 70 no engine, 73 files can't be placed, 75 another broker holds it,
78 configuration; of exclusive's command: 124 it ran too long, 126 it can't be run,
127 it is not there. All of them: docs/exit-codes.md.
"""


class _LazyGroup(click.Group):
    """Imports a command's module only when it is needed: `status` does not load what only `demo` uses."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{_COMMANDS[cmd_name]}", __package__)
        interrupts_raise()
        command: click.Command = getattr(module, f"command_{cmd_name.replace('-', '_')}")
        return command


def _version(context: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return  # click calls it for every command
    from ..route.engine_version import expected_engine

    click.echo(f"mempalace-broker, version {__version__}")
    try:
        engine = expected_engine(os.environ)
        click.echo(f"mempalace, version {engine.version or 'unknown'}, in {engine.interpreter}")
    except BrokerError:
        click.echo("mempalace: none that can be used, see `mempalace-broker doctor`")
    context.exit()


@click.group(
    cls=_LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show our version and the engine's.",
)
def root() -> None:
    """One writer for one MemPalace, so that many coding agents share one memory without corrupting it.

    Your agents start `mp-shim` instead of `mempalace-mcp`; it starts the broker when there is none.
    Use this command to inspect, stop and repair it.

    Every command works on one palace: the one that mempalace would use here, or --palace DIR.
    """


@root.result_callback()
@click.pass_context
def _after(context: click.Context, code: int) -> int:
    """Announce newer versions to a person, then pass the exit code on."""
    if sys.stderr.isatty():
        from .update_notice import notify

        notify(context.invoked_subcommand, sys.argv, os.environ)
    return code
