"""What a person sees while the demo works: bars on a terminal, plain lines elsewhere, nothing for --json."""

from __future__ import annotations

import contextlib
import functools
import statistics
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ..console import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .agent import Agent


class Show:
    """Progress of one demo. `quiet`: say nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._out = console()
        self._quiet = quiet
        self._steps = 0

    def print(self, *parts: Any) -> None:
        """Anything rich can print."""
        if not self._quiet:
            self._out.print(*parts)

    def step(self, text: str) -> None:
        """The next step begins."""
        self._steps += 1
        self.print(f"\n[bold]{self._steps}. {escape(text)}[/]")

    def note(self, text: str) -> None:
        """Something happened within a step."""
        self.print(f"   {escape(text)}")

    def verbatim(self, text: str) -> None:
        """Something to be copied: never wrapped."""
        for line in [] if self._quiet else text.splitlines():
            self._out.print(f"     {escape(line)}", soft_wrap=True)

    def check(self, name: str, ok: bool, detail: str) -> None:
        """Something was verified."""
        mark = "[bold green]ok[/]  " if ok else "[bold red]FAIL[/]"
        self.print(f"   {mark} {escape(name)}: {escape(detail)}")

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """A bar while the block runs; call what it yields after each item, from any thread."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        columns = ("  ", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = self._quiet or not self._out.is_terminal
        with Progress(*columns, console=self._out, transient=True, disable=hidden) as bars:
            yield functools.partial(bars.advance, bars.add_task("", total=total))

    def figures(self, rows: Sequence[dict[str, Any]], memory: dict[str, int]) -> None:
        """The table of calls, and what the processes take."""
        table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
        for name in ("call", "times", "median ms", "slowest ms"):
            table.add_column(name, justify="left" if name == "call" else "right")
        for row in rows:
            table.add_row(row["call"], f"{row['times']:,}", f"{row['median_ms']:.1f}", f"{row['slowest_ms']:.1f}")
        self.print(table)
        if memory.get("engine_mb"):
            shared = memory["engine_mb"] + memory["broker_mb"] + memory["shims_mb"]
            self.print(
                f"   memory: {memory['sessions']} sessions + broker + engine {shared} MB; "
                f"the same sessions with an engine each: about {memory['sessions'] * memory['engine_mb']} MB"
            )


def timing_rows(agents: Sequence[Agent]) -> list[dict[str, Any]]:
    """One row per tool over all sessions."""
    by_tool: dict[str, list[float]] = {}
    for agent in agents:
        for tool, seconds in agent.timings.items():
            by_tool.setdefault(tool, []).extend(seconds)
    return [
        {
            "call": tool,
            "times": len(seconds),
            "median_ms": round(statistics.median(seconds) * 1000, 2),
            "slowest_ms": round(max(seconds) * 1000, 2),
        }
        for tool, seconds in by_tool.items()
    ]
