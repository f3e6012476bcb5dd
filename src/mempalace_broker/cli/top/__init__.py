"""`top`: a live screen of the broker's status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..context_options import palace_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ...system.paths import Context

_WIDEST = 500  # characters of one text of the status
_PLAIN_WIDTH, _PLAIN_HEIGHT = 80, 200  # where there is no terminal


@click.command("top", short_help="A live screen: sessions, lanes, rates, latencies, errors.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2, max=60),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two updates.",
)
@palace_options
def command_top(context: Context, interval: float) -> int:
    """Show what the broker does, live: sessions, lanes, rates, latencies, the engine, errors, the lease, snapshots.

    q, Esc or Ctrl-C leaves. Latencies run from arrival to answer; they cover the calls that the engine answered, except
    those that block by design. Without a terminal to draw on, it prints one screen and ends; scripts should use
    `status --json`.

    \b
    Example:
      mempalace-broker top
      mempalace-broker top --interval 5

    \b
    Exit codes: those of `status`, at the moment when it ends: 0 the broker runs, 3 it does not,
    69 it does not answer.
    """
    from .screen import can_be_drawn

    if can_be_drawn():
        return _live(context, interval)
    from ..console import console

    found = _look(context)
    out = console()
    for text in _screen(out, context, found, live=False):
        text.rstrip()
        out.print(text)
    return int(found["exit_code"])


def _look(context: Context) -> dict[str, Any]:
    from ...protocol.text import printable_tree
    from ..status import ask_status

    return {name: printable_tree(value, _WIDEST) for name, value in ask_status(context).items()}


def _screen(out: Console, context: Context, found: dict[str, Any], *, live: bool) -> list[Text]:
    from .view import screen

    width = out.width if out.is_terminal else _PLAIN_WIDTH
    height = out.height if live else _PLAIN_HEIGHT
    unicode = (out.encoding or "").lower().startswith("utf")
    return screen(found, width, height, now=context.clock.wall(), unicode=unicode, live=live)


def _live(context: Context, interval: float) -> int:
    from rich.console import Group
    from rich.live import Live

    from ..console import console
    from .screen import keyboard

    found = _look(context)
    out = console()
    try:
        with (
            keyboard(out) as keys,
            Live(Group(*_screen(out, context, found, live=True)), console=out, auto_refresh=False, screen=True) as live,
        ):
            while not keys.quit_pressed(interval):
                found = _look(context)
                live.update(Group(*_screen(out, context, found, live=True)), refresh=True)
    except KeyboardInterrupt:
        pass
    sys.stdout.flush()
    return int(found["exit_code"])
