"""How a benchmark is run and reported: options, rivals side by side, a report of tables and checks."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import VERSIONS, Check, Engine, Lacking, dump, engine, machine, machine_line, median, table
from benchmarks.world import AGAINST, BARE, BROKER, HUB, OTHER, World


@dataclass
class Options:
    """What the command line said.

    Attributes:
        quick: fewer rounds; figures are then for orientation. engines: oldest first.
    """

    quick: bool
    engines: list[Engine]

    def rounds(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @property
    def newest(self) -> Engine:
        return self.engines[-1]


@dataclass
class Report:
    """What a benchmark found.

    Attributes:
        title: of the section. tables: (caption, head, rows). checks: targets. notes: sentences beside them.
    """

    title: str
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: tuple[float, float] = (0.0, 0.0)

    def add(self, caption: str, head: list[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables.append((caption, head, [list(row) for row in rows]))

    def check(
        self, name: str, value: float, limit: float, unit: str = "", note: str = "", *, least: bool = False
    ) -> None:
        self.checks.append(Check(name, value, limit, unit, note, least))

    def text(self, *, markdown: bool = False) -> str:
        parts = [f"## {self.title}" if markdown else f"{self.title}\n{'=' * len(self.title)}"]
        for caption, head, rows in self.tables:
            parts.append(f"{caption}\n\n{table(head, rows, markdown=markdown)}")
        if self.checks:
            head = ["target", "measured", "wanted", "", "beside it"]
            parts.append(table(head, [check.row() for check in self.checks], markdown=markdown))
        parts += self.notes
        parts.append(f"Load of the machine before and after: {self.load[0]:.1f}, {self.load[1]:.1f}.")
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "tables": [{"caption": c, "head": h, "rows": r} for c, h, r in self.tables],
            "checks": [check.as_json() for check in self.checks],
            "notes": self.notes,
            "load": self.load,
        }


Measure = Callable[[Options], Report]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def measured(measure: Measure, options: Options) -> Report:
    """The report, with the load around it."""
    before = os.getloadavg()[0]
    report = measure(options)
    report.load = (before, os.getloadavg()[0])
    return report


def options(argv: Sequence[str] | None, doc: str | None) -> tuple[Options, argparse.Namespace]:
    """Parse what all benchmarks take. Lacking when an engine is not there."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for orientation")
    parser.add_argument("--engine", action="append", help="3.4.0, newest, or a path; oldest first (default: both)")
    parser.add_argument("--against", type=Path, help="folder of another version's mp-shim and mempalace-broker")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, help="write the report as Markdown to this file, too")
    args = parser.parse_args(argv)
    if args.against is not None:
        os.environ[AGAINST] = str(args.against.resolve())
    return Options(args.quick, [engine(name) for name in args.engine or VERSIONS]), args


def main(measures: Sequence[Measure], doc: str | None, argv: Sequence[str] | None = None) -> int:
    """Body of every benchmark script; 0 when all targets are met, 1 when not, 2 when something is lacking."""
    try:
        chosen, args = options(argv, doc)
        facts, line = machine(), machine_line()
        say(line)
        reports = [measured(measure, chosen) for measure in measures]
    except Lacking as exc:
        say(str(exc))
        return 2
    versions = ", ".join(f"mempalace {found.version}" for found in chosen.engines)
    if args.json:
        print(dump({"machine": facts, "versions": versions, "reports": [report.as_json() for report in reports]}))
    else:
        print("\n\n\n".join([f"{line}\n{versions}", *(report.text() for report in reports)]))
    if args.write:
        parts = [f"{line}. {versions}.", *(report.text(markdown=True) for report in reports)]
        args.write.write_text("# Figures\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    return 0 if all(check.ok for report in reports for check in report.checks) else 1


# -- rivals


def label(kind: str, which: Engine) -> str:
    """As tables name it: "broker 3.11.0"."""
    return f"{kind} {which.version}"


def rivals(engines: Sequence[Engine], kinds: Sequence[str] = (BARE, HUB, BROKER)) -> list[tuple[str, Engine]]:
    """All that can be compared, oldest engine first."""
    found = [*kinds, OTHER] if AGAINST in os.environ and BROKER in kinds else kinds
    return [(kind, which) for which in engines for kind in found if kind != HUB or which.has_hub]


def added(ours: Sequence[float], others: Sequence[float]) -> float:
    """How much ours is above the others' figure, as the median over rounds: both were measured in each."""
    return median(a - b for a, b in zip(ours, others, strict=True))


@contextlib.contextmanager
def worlds(
    pairs: Sequence[tuple[str, Engine]], palace: Callable[[Engine], Path | None] = lambda _: None
) -> Iterator[dict[str, World]]:
    """One world for each, by label, all at once; `palace` gives what to start from."""
    with ExitStack() as stack:
        yield {label(k, which): stack.enter_context(World(which, k, palace=palace(which))) for k, which in pairs}
