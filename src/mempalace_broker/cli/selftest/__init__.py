"""`selftest`: does this machine do what the broker relies on? For reports from machines that none of us has."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ... import __version__
from ...errors import EXIT_FAILURE, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from .check import Bench, Check

SCHEMA = 1
LIMIT_S = 120.0
_WIDE = 22  # columns of names
_STYLES = {"ok": "green", "differs": "bold yellow", "failed": "bold red", "skipped": "dim"}


@click.command("selftest", short_help="Check this machine for a report, in a directory of its own.")
@click.option("--json", "as_json", is_flag=True, help='One JSON document: {"ok", "machine", "checks": [...]}.')
@click.option("--skip", multiple=True, metavar="NAME", help="Leave out a check, e.g. demo. Several times.")
@click.option(
    "--share",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Check this shared folder instead, with the other half started on the other side at the same time.",
)
def command_selftest(as_json: bool, skip: tuple[str, ...], share: Path | None) -> int:
    """Check what the broker relies on, on any machine, within two minutes; the output is for a report.

    It works with real programs in a HOME of its own in a temporary directory, and never touches your palace. Each
    check has a figure and a verdict: ok, differs (from what docs/macos.md says, but the broker copes), failed, or
    skipped. Last comes the demo: three agents, a killed engine.

    A Mac gives other answers to what starts over ssh, and in a container:

    \b
    Example:
      mempalace-broker selftest
      ssh localhost mempalace-broker selftest
      mempalace-broker selftest --share ~/.mempalace      on the host, and at the same time
      docker run --rm -v ~/.mempalace:/share YOUR-IMAGE mempalace-broker selftest --share /share

    \b
    Exit codes: 0 nothing failed, 1 a check failed, 73 the folder in DIR can't be made.
    """
    from ..cleanup import end_stragglers, single_interrupt, uninterrupted
    from ..console import console
    from ..demo import own_folder
    from .check import Bench

    out = console(stderr=as_json)
    begun = time.monotonic()
    with single_interrupt(), own_folder("selftest") as root, _checks(share) as checks:
        bench = Bench(root, os.environ, lambda text: out.print(f"   {text}", markup=False))
        try:
            report = _perform(bench, share, _chosen(checks, skip), out)
        finally:
            with uninterrupted():
                end_stragglers(str(bench.home))
    report["seconds"] = round(time.monotonic() - begun, 1)
    if as_json:
        click.echo(json.dumps(report))
    else:
        verdicts = [row["verdict"] for row in report["checks"]]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in _STYLES if verdict in verdicts)
        out.print(f"{counts}; {report['seconds']} s.")
    return EXIT_OK if report["ok"] else EXIT_FAILURE


def _perform(bench: Bench, share: Path | None, checks: list[Check], out: Console) -> dict[str, Any]:
    """Make the checks, showing each as it ends; the report."""
    from ...system.clock import Clock, Deadline
    from ..console import line
    from .check import run_check, without_home
    from .facts import machine_facts

    def shown(text: str) -> str:
        return without_home(text, bench.users_env)

    facts = {name: shown(value) for name, value in machine_facts(bench, share).items()}
    for name, value in facts.items():
        out.print(line((f"{name:<{_WIDE}}", "dim"), value))
    deadline, rows = Deadline.after(Clock(), LIMIT_S), []
    for check in checks:
        with out.status(check.name):
            outcome = run_check(check, bench, deadline)
        row = {"name": check.name, "verdict": str(outcome.verdict)}
        rows.append({**row, "figure": shown(outcome.figure), "why": shown(outcome.why)})
        said = ": ".join(filter(None, (rows[-1]["figure"], rows[-1]["why"])))
        out.print(line(f"{check.name:<{_WIDE}}", (f"{outcome.verdict:<9}", _STYLES[outcome.verdict]), said))
    ok = not any(row["verdict"] == "failed" for row in rows)
    return {"schema": SCHEMA, "ok": ok, "version": __version__, "machine": facts, "checks": rows}


@contextlib.contextmanager
def _checks(share: Path | None) -> Iterator[tuple[Check, ...]]:
    if share is None:
        from . import programs, system_calls

        yield (*system_calls.CHECKS, *programs.CHECKS)
        return
    from .half import Half
    from .share import share_checks

    half = Half(share)
    try:
        yield share_checks(half)
    finally:
        half.close()


def _chosen(checks: tuple[Check, ...], skip: tuple[str, ...]) -> list[Check]:
    names = [check.name for check in checks]
    if unknown := [name for name in skip if name not in names]:
        raise click.BadParameter(f"no check is named {unknown[0]}; there are: {', '.join(names)}")
    return [check for check in checks if check.name not in skip]
