"""`status`: what the broker is doing. The broker answers by itself, even while its engine hangs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_NOT_RUNNING, EXIT_OK, EXIT_UNAVAILABLE
from .context_options import palace_options

if TYPE_CHECKING:
    from ..system.paths import Context

ANSWER_S = 5.0
WATCH_S = 1.0
_EXIT_LIMIT = 1 << 16
_WIDEST = 2000  # characters of one text in the view


@click.command("status", short_help="Who owns the palace, and what it is doing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for scripts.")
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@palace_options
def command_status(context: Context, as_json: bool, watch: bool) -> int:
    """Show who owns the palace, which sessions it serves, what runs and waits, and what is degraded.

    The broker answers by itself: this works while the engine starts, hangs or is being replaced.

    \b
    Example:
      mempalace-broker status
      mempalace-broker status --json | jq .engine.state

    \b
    Exit codes: 0 it runs, 3 it does not (with the reason of its last exit),
    69 a broker owns the palace but does not answer, or another machine has it and can't be reached.
    """
    if watch and not as_json:
        return _watch(context)
    found = ask_status(context)
    if as_json:
        click.echo(json.dumps(found))
        return int(found["exit_code"])
    show(context, found)
    return int(found["exit_code"])


def ask_status(context: Context) -> dict[str, Any]:
    """The broker's own snapshot with "running": True, or why there is none; and the exit code of `status`."""
    from ..locality.locality import locate
    from ..route.ask import ask_broker, is_remote
    from ..system.clock import Deadline
    from ..system.lock import is_held

    said = ask_broker(context, "broker/status", {}, Deadline.after(context.clock, ANSWER_S))
    locality = locate(context.files)
    here = {"locality": locality.kind, "why": locality.why, "route": said.path}
    if said.answer is not None:
        return {"running": True, "exit_code": EXIT_OK, **said.answer, "here": here}
    held = is_held(context.files.owner_lock)
    palace = {**context.identity.as_json(), "state_root": context.files.root}
    found: dict[str, Any] = {
        "running": False,
        "palace": palace,
        "why": said.why,
        "last_exit": context.files.exit.read_object(_EXIT_LIMIT) or None,
        "here": here,
    }
    if said.unreachable or is_remote(context.env):
        return {**found, "exit_code": EXIT_UNAVAILABLE, "owner": None}
    if held or said.accepted:
        return {**found, "exit_code": EXIT_UNAVAILABLE, "owner": _owner(context)}
    return {**found, "exit_code": EXIT_NOT_RUNNING}


def _owner(context: Context) -> dict[str, Any] | None:
    from ..system.process_command import process_command
    from .stop import LockHolder

    pid = LockHolder(context.files.owner_lock).pid
    return {"pid": pid, "command": process_command(pid)} if pid else None


def show(context: Context, found: dict[str, Any]) -> None:
    """Print the view."""
    from .console import console

    out = console()
    for part in _parts(context, found):
        out.print(part)


def _parts(context: Context, found: dict[str, Any]) -> list[Any]:
    from ..locality.locality import OTHER_KERNEL
    from ..protocol.text import printable, printable_tree
    from ..route.ask import is_remote
    from ..route.discover import ENDPOINT_VARIABLE
    from .console import line
    from .status_view import render_not_running, render_status

    found = {name: printable_tree(value, _WIDEST) for name, value in found.items()}  # clients named themselves
    if found["running"]:
        return list(render_status(found))
    if found["exit_code"] == EXIT_NOT_RUNNING:
        return list(render_not_running(context.identity.path, found["why"], found["last_exit"]))
    remote = is_remote(context.env)
    if found["owner"] is None and (remote or found["here"]["locality"] == OTHER_KERNEL):
        where = printable(context.env[ENDPOINT_VARIABLE], _WIDEST) if remote else context.identity.path
        return [
            line(("◌ ", "bold yellow"), ("out of reach", "bold yellow"), f"  {where}"),
            line(f"  {found['why']}."),
            line("  Hint: mempalace-broker ensure; then `mempalace-broker doctor`."),
        ]
    who = found["owner"] or {}
    return [
        line(("◐ ", "bold yellow"), ("owned, but silent", "bold yellow"), f"  {context.identity.path}"),
        line(f"  {found['why']}; owner: pid {who.get('pid', 'unknown')}, {who.get('command') or 'unknown command'}"),
        line("  It is starting, leaving, or hanging. Hint: try again; then `mempalace-broker doctor`, `stop --now`."),
    ]


def _watch(context: Context) -> int:
    from rich.console import Group
    from rich.live import Live

    from .console import console

    found = ask_status(context)
    out = console()
    if not sys.stdout.isatty():
        show(context, found)
        return int(found["exit_code"])
    try:
        with Live(Group(*_parts(context, found)), console=out, auto_refresh=False, screen=True) as live:
            while True:
                context.clock.sleep(WATCH_S)  # often enough for a person
                found = ask_status(context)
                live.update(Group(*_parts(context, found)), refresh=True)
    except KeyboardInterrupt:
        show(context, found)
        return int(found["exit_code"])
