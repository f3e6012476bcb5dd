"""`doctor`: read-only diagnosis, each finding with its hint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_FINDINGS, EXIT_OK
from ..protocol.jsonrpc import load_object
from .context_options import palace_options

if TYPE_CHECKING:
    from typing import IO

    from ..doctor.findings import Finding
    from ..system.paths import Context

_MOST_STATUS = 16 << 20
_MARKS = {
    "ok": ("ok", "green"),
    "info": ("..", "dim"),
    "warn": ("! ", "bold yellow"),
    "error": ("X ", "bold red"),
}


@click.command("doctor", short_help="Find what is wrong on this machine, with hints.")
@click.option("--json", "as_json", is_flag=True, help='One JSON document: {"ok", "palace", "findings": [...]}.')
@click.option(
    "--compare",
    "other",
    type=click.File("rb"),
    metavar="FILE",
    help="Also say whether the broker whose `status --json` is in FILE (- for stdin) has the same memory.",
)
@palace_options
def command_doctor(context: Context, as_json: bool, other: IO[bytes] | None) -> int:
    """Check everything that can be wrong, change nothing, and give a hint for each finding.

    Compares locks, record, socket and answer with each other; checks permissions, disk and mount of the palace,
    other processes that have its files open, mempalace's own hub and write lock, the engine, its model, and settings.

    \b
    Example:
      mempalace-broker doctor
      mempalace-broker doctor --json | jq '.findings[] | select(.severity == "error")'
      ssh laptop mempalace-broker status --json | mempalace-broker doctor --compare -

    \b
    Exit codes: 0 nothing to act on, 4 at least one finding of severity warn or error.
    """
    from ..doctor.database import compare
    from ..doctor.diagnose import diagnose
    from .status import ask_status

    findings = diagnose(context)
    if other is not None:
        findings += compare(ask_status(context), load_object(other.read(_MOST_STATUS)))
    ok = not any(finding.severity.is_alarming for finding in findings)
    if as_json:
        listed = [finding.as_json() for finding in findings]
        click.echo(json.dumps({"ok": ok, "palace": context.identity.path, "findings": listed}))
    else:
        _show(findings)
    return EXIT_OK if ok else EXIT_FINDINGS


def _show(findings: list[Finding]) -> None:
    from .console import console, line

    out = console()
    for finding in findings:
        mark, style = _MARKS[finding.severity]
        emphasis = "bold" if finding.severity.is_alarming else ""
        out.print(line((f"{mark} ", style), (f"{finding.what}: ", emphasis), finding.detail))
        if finding.hint:
            out.print(line(("     hint: ", "dim"), finding.hint))
    alarming = sum(finding.severity.is_alarming for finding in findings)
    out.print(line((f"{alarming} of {len(findings)} findings to act on.", "bold" if alarming else "green")))
