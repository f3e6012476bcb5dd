"""Output for people: colour on a terminal, plain unwrapped lines anywhere else."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..protocol.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import ConsoleOptions, RenderResult

PLAIN_WIDTH = 200
_WIDEST = 10_000  # characters of one part of a line


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader of our output left: outcome.guarded knows how to end. Rich would exit with 1."""
        raise  # noqa: PLE0704 - rich calls this where it handles BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console for stdout or stderr. NO_COLOR and TERM=dumb are honoured (by rich), pipes get plain text."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return _Console(file=stream, highlight=False, no_color=bool(os.environ.get("NO_COLOR")))
    return _Console(file=stream, highlight=False, color_system=None, width=PLAIN_WIDTH, soft_wrap=True)


def duration(seconds: float) -> str:
    """ "0.2 s", "48 s", "3 min", "2 h 5 min", "3 d 4 h"."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def how_far(call: Mapping[str, Any]) -> str:
    """How far a running call of `status` is: ", file 12 of 60 (18 %)" for a mine, else ""."""
    file, files = call.get("file"), call.get("files")
    if not (isinstance(file, int) and isinstance(files, int) and files > 0):
        return ""
    return f", file {file:,} of {files:,} ({100 * (file - 1) // files} %)"


def size(kib: int | float | None) -> str:
    """ "31 MB" for 31000 KiB or so; "" for None."""
    return "" if kib is None else f"{kib / 1024:,.0f} MB"


def plural(count: int, thing: str) -> str:
    """ "1 session", "2 sessions"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def line(*parts: str | tuple[str, str]) -> Text:
    """A line of text from parts, each plain or (text, style). Never parsed as markup: paths may hold brackets.

    Parts may quote what others wrote: they are made printable.
    """
    return Text.assemble(*(_printable(part) for part in parts))


def _printable(part: str | tuple[str, str]) -> str | tuple[str, str]:
    return printable(part, _WIDEST) if isinstance(part, str) else (printable(part[0], _WIDEST), part[1])


class Labelled:
    """A label and its text; on a terminal, long text continues below the text, not below the label.

    Elsewhere it is one line, however long: people grep it.
    """

    def __init__(self, label: str, text: Text, width: int) -> None:
        self.label = f"  {label}".ljust(width)
        self.text = text
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for rich."""
        if not console.is_terminal:
            yield Text.assemble((self.label, "dim"), self.text)
            return
        grid = Table.grid()
        grid.add_column(width=self.width)
        grid.add_column(overflow="fold")
        grid.add_row(Text(self.label, "dim"), self.text)
        yield grid
