"""`move-to`: move a palace's drawers into another storage backend, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import EXIT_OK
from ..context_options import palace_options, wait_option
from ..outcome import say

if TYPE_CHECKING:
    from ...system.paths import Context

BACKENDS = ("chroma", "pgvector", "sqlite_exact")


@click.command("move-to", short_help="Move the drawers into another backend, such as PostgreSQL, or back.")
@click.argument("target", metavar="BACKEND", type=click.Choice(BACKENDS))
@click.option("--replace", is_flag=True, help="Overwrite rows of this palace that the new store already has.")
@wait_option
@palace_options
def command_move_to(context: Context, target: str, replace: bool, wait_s: float) -> int:
    """Copy all drawers into BACKEND with their vectors, verify them there, then let the palace use it.

    Sessions stay; their calls wait meanwhile, as under `exclusive`. The old store is kept beside the palace, or in
    its database. If the command is killed, the palace is as before or the move is complete; repeat the command, and
    it goes on from there. For pgvector, the database's address comes from `env` in config.toml; if it is not there,
    the command takes it from $MEMPALACE_PGVECTOR_DSN or asks for it, and writes it to config.toml.

    \b
    Example:
      mempalace-broker move-to pgvector
      mempalace-broker move-to chroma

    \b
    Exit codes: 0 the drawers are moved, 1 they are not, and nothing has changed; 69 the palace is
    another machine's, 70 no mempalace, 73 files can't be placed, 75 it was not free in time,
    78 there is no address of a database, or settings are invalid.
    """
    from .move import move

    kept = move(context, target, wait_s=wait_s, replace=replace)
    if kept is None:
        return 1
    say(f"the drawers of {context.identity.path} are in {target} now; the old store is kept in {kept}")
    return EXIT_OK
