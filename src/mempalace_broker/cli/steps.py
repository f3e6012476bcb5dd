"""Shows the progress of a long command on stderr: a bar on a terminal, elsewhere a line for each step."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress

_MB = 1_000_000


class Steps:
    """The steps of a command, shown as they begin. This base class shows nothing."""

    def begin(self, what: str, total: int | None = None) -> None:
        """Begin a step. `total`: its size in bytes, if known."""

    def advance(self, count: int) -> None:
        """Note that `count` more bytes of the step are done."""


class _Lines(Steps):
    def __init__(self, out: Console) -> None:
        self._out = out

    def begin(self, what: str, total: int | None = None) -> None:
        size = f" ({total / _MB:,.0f} MB)" if total and total > _MB else ""
        self._out.print(f"{what}{size} ...")


class _Bar(Steps):
    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def begin(self, what: str, total: int | None = None) -> None:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars.add_task(what, total=total, size="")

    def advance(self, count: int) -> None:
        (task,) = self._bars.tasks
        done = task.completed + count
        size = f"{done / _MB:,.0f} of {task.total / _MB:,.0f} MB" if task.total else ""
        self._bars.update(task.id, completed=done, size=size)


@contextlib.contextmanager
def steps() -> Iterator[Steps]:
    """Show steps until the block ends."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from .console import console

    out = console(stderr=True)
    if not out.is_terminal:
        yield _Lines(out)
        return
    columns = (
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[size]}"),
    )
    with Progress(*columns, console=out, transient=True) as bars:
        yield _Bar(bars)
