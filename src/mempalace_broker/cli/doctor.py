"""`doctor`: read-only diagnosis, each finding with its hint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_FINDINGS, EXIT_OK
from .target import palace_options

if TYPE_CHECKING:
    from ..doctor.findings import Row
    from ..system.context import Context

_MARKS = {
    "ok": ("ok", "green"),
    "info": ("..", "dim"),
    "warn": ("! ", "bold yellow"),
    "error": ("X ", "bold red"),
}


@click.command("doctor", short_help="What is right and wrong here, with mends.")
@click.option("--json", "as_json", is_flag=True, help='One JSON document: {"ok", "palace", "findings": [...]}.')
@palace_options
def command_doctor(target: Context, as_json: bool) -> int:
    """Look at everything that can be wrong, change nothing, and name the mend of each finding.

    Locks against record against socket against answer; permissions, disk and mount of the palace; other
    processes that have its files open; mempalace's own hub and lease; the engine and its model; settings.

    \b
    Example:
      mempalace-broker doctor
      mempalace-broker doctor --json | jq '.findings[] | select(.severity == "error")'

    \b
    Exit codes: 0 nothing to act on, 4 at least one finding of severity warn or error.
    """
    from ..doctor.diagnose import diagnose
    from ..doctor.findings import alarming

    rows = diagnose(target)
    code = EXIT_FINDINGS if alarming(rows) else EXIT_OK
    if as_json:
        findings = [row.as_json() for row in rows]
        click.echo(json.dumps({"ok": code == EXIT_OK, "palace": target.identity.path, "findings": findings}))
    else:
        _show(rows)
    return code


def _show(rows: list[Row]) -> None:
    from .console import console, line

    out = console()
    for row in rows:
        mark, style = _MARKS[row.severity]
        out.print(
            line(
                (f"{mark} ", style), (f"{row.what}: ", "bold" if row.severity in ("warn", "error") else ""), row.detail
            )
        )
        if row.hint:
            out.print(line(("     hint: ", "dim"), row.hint))
    bad = sum(row.severity in ("warn", "error") for row in rows)
    out.print(line((f"{bad} to act on, {len(rows)} looked at.", "bold" if bad else "green")))
