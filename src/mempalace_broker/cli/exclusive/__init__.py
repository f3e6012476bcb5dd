"""`exclusive`: run a command that has the palace for itself, while the agents' sessions wait."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import click

from ...errors import EXIT_CANNOT_RUN, EXIT_NO_COMMAND
from ..context_options import palace_options, wait_option
from ..outcome import say_error

if TYPE_CHECKING:
    from ...system.paths import Context


@click.command(
    "exclusive",
    short_help="Run a command that has the palace for itself.",
    context_settings={"allow_interspersed_args": False},
)
@wait_option
@click.option(
    "--limit",
    "limit_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End the command after this long: SIGTERM, 5 s, SIGKILL. Default: no limit.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@palace_options
def command_exclusive(context: Context, wait_s: float, limit_s: float | None, command: tuple[str, ...]) -> int:
    """Run COMMAND while no engine has the palace open, then let the agents go on.

    For mempalace's own maintenance: repair, migrate, compress, dedup, sync. Running calls finish, the engine
    closes the palace and ends, COMMAND runs on this terminal, and the engine comes back when COMMAND and all that it
    started are over. Meanwhile the agents' sessions stay: their calls wait, as for a `mine`. The broker itself keeps
    the palace, so no other broker opens it; without a broker, the same locks are taken. With --palace, COMMAND gets
    that palace in $MEMPALACE_PALACE_PATH.

    \b
    Example:
      mempalace-broker exclusive -- mempalace repair --yes
      mempalace-broker exclusive --wait 300 --limit 3600 -- mempalace compress

    \b
    Exit codes: COMMAND's own, as a shell has it; 69 the palace can't be had from here, 73 its
    locks can't be placed, 75 it was not free in time; 124 COMMAND ran into --limit,
    126 it can't be run, 127 there is no such command.
    """
    if shutil.which(command[0]) is None:
        if os.sep in command[0] and os.path.exists(command[0]):
            say_error(f"{command[0]} is not an executable file.", "chmod +x it, or name the program that runs it")
            return EXIT_CANNOT_RUN
        say_error(f"there is no command {command[0]}.", "give its path, or put it on PATH")
        return EXIT_NO_COMMAND
    from ...system.clock import Deadline
    from ...system.palace_stores import server_backend
    from .borrow import Borrower
    from .child import run_command

    if backend := server_backend(context.identity.path):
        say_error(f"the drawers are in {backend}: other machines can still use that database meanwhile.")
    with Borrower(context, command, wait_s).borrow(Deadline.after(context.clock, wait_s)) as loan:
        return run_command(context, command, loan, limit_s)
