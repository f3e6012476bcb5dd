"""`backup`: snapshots of a palace in use, and back."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

from ...errors import EXIT_OK
from ...system.palace_stores import server_backend
from ..context_options import palace_options, wait_option
from ..steps import steps

if TYPE_CHECKING:
    from ...system.paths import Context
    from .snapshots import Snapshot

_dir_option = click.option("--dir", "folder", metavar="DIR", help="The folder of snapshots. Default: a private one.")
_TRY_OUT = "trying it out with a fresh engine"
_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of words.")


@click.group("backup", short_help="Make, list, verify and restore snapshots of the palace.")
def command_backup() -> None:
    """Snapshots of a palace in use: databases, indexes, knowledge graph, tunnels, config.

    They lie in a folder that only you can write. Unchanged files are shared between snapshots (hard links).
    """


@command_backup.command("create", short_help="Make a snapshot; sessions go on.")
@_dir_option
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Then remove all but this palace's newest N.")
@wait_option
@click.option("--untried", is_flag=True, help="Don't open it with a fresh engine.")
@click.option(
    "--scheduled", is_flag=True, help="Mark it as scheduled: --keep then counts and removes only scheduled ones."
)
@_json_option
@palace_options
def create(
    context: Context,
    folder: str | None,
    keep: int | None,
    wait_s: float,
    untried: bool,
    scheduled: bool,
    as_json: bool,
) -> int:
    """Make a snapshot of one moment, while sessions go on; their writes wait for a fraction of a second.

    It is only kept if its checksums and databases are right, and a fresh engine opens a copy of it, reads drawers and
    finds them by search.

    \b
    Example:
      mempalace-broker backup create
      mempalace-broker backup create --dir ~/backups/memory --keep 14

    \b
    Exit codes: 0 it is there, 1 it does not work, 69 the palace is another machine's, 70 no
    mempalace to try it with, 73 files can't be placed, 75 no pause in which to copy.
    """
    from ..cleanup import single_interrupt
    from .create import create as make
    from .snapshots import prune, snapshot_folder
    from .tryout import try_out

    where = snapshot_folder(context, folder, make=True)

    with single_interrupt(), steps() as shown:

        def tried(snapshot: Snapshot) -> None:
            if not untried:
                shown.begin(_TRY_OUT)
                try_out(snapshot, context.env, context.identity.path)

        made = make(context, where, wait_s=wait_s, try_out=tried, steps=shown, scheduled=scheduled)
    gone = prune(where, context.identity.path, keep, scheduled=scheduled) if keep else []
    facts = {**_facts(made.snapshot), "pause_s": round(made.pause_s, 3), "tried": not untried, "removed": gone}
    text = f"{made.snapshot.path}: {_size(made.snapshot)}, writes waited {made.pause_s:.2f} s"
    _say(facts, text + _left_out(made.snapshot), as_json)
    return EXIT_OK


@command_backup.command("list", short_help="List the snapshots.")
@_dir_option
@_json_option
@palace_options
def list_snapshots(context: Context, folder: str | None, as_json: bool) -> int:
    """List the snapshots, oldest first.

    \b
    Example:
      mempalace-broker backup list

    \b
    Exit codes: 0, 73 the folder can't be used.
    """
    from .snapshots import snapshot_folder, snapshots_in

    where = snapshot_folder(context, folder, make=False)
    found = snapshots_in(where)
    lines = [f"{snapshot.name}  {_size(snapshot)}" for snapshot in found]
    facts = {"folder": where, "snapshots": list(map(_facts, found))}
    _say(facts, "\n".join(lines) or f"no snapshots in {where}", as_json)
    return EXIT_OK


@command_backup.command("verify", short_help="Check a snapshot, and open it.")
@click.argument("name", required=False)
@_dir_option
@_json_option
@palace_options
def verify(context: Context, name: str | None, folder: str | None, as_json: bool) -> int:
    """Check the snapshot NAME (default: this palace's newest): checksums, databases, a fresh engine on a copy of it.

    \b
    Example:
      mempalace-broker backup verify

    \b
    Exit codes: 0 it is good, 1 it is not, or there is none, 70 no mempalace to try it with,
    73 the folder can't be used.
    """
    from ..cleanup import single_interrupt
    from .snapshots import find_snapshot, snapshot_folder
    from .tryout import try_out

    snapshot = find_snapshot(context, snapshot_folder(context, folder, make=True), name)
    with single_interrupt(), steps() as shown:
        shown.begin("checking")
        snapshot.check()
        shown.begin(_TRY_OUT)
        try_out(snapshot, context.env, context.identity.path)
    _say({**_facts(snapshot), "good": True}, f"{snapshot.path} is good{_left_out(snapshot)}", as_json)
    return EXIT_OK


@command_backup.command("restore", short_help="Put a snapshot in the palace's place.")
@click.argument("name", required=False)
@_dir_option
@wait_option
@click.option("--yes", is_flag=True, help="Do it; without this it only says what would happen.")
@_json_option
@palace_options
def restore(context: Context, name: str | None, folder: str | None, wait_s: float, yes: bool, as_json: bool) -> int:
    """Put the snapshot NAME (default: this palace's newest) in the palace's place; what was there is kept beside it.

    The snapshot is checked first. Sessions stay; their calls wait for seconds. Killed at any instant, the palace is
    either as before, or the restore is finished by whoever opens it next. config.json is not put back.

    \b
    Example:
      mempalace-broker backup restore 2026-11-27T09-36-01Z --yes

    \b
    Exit codes: 0 done, or nothing done without --yes; 1 the snapshot is not good, 69 the
    palace is another machine's, 73 files can't be placed, 75 the palace was not free in time.
    """
    from .restore import restore as put_back
    from .snapshots import find_snapshot, snapshot_folder

    snapshot = find_snapshot(context, snapshot_folder(context, folder, make=False), name)
    snapshot.check()
    if not yes:
        text = f"{snapshot.path} is good and would replace {context.identity.path}; add --yes to do it."
        _say({**_facts(snapshot), "restored": False}, text, as_json)
        return EXIT_OK
    with steps() as shown:
        aside = put_back(context, snapshot, wait_s=wait_s, steps=shown)
    text = f"restored {snapshot.name}; what was there before: {aside}{_left_out(snapshot)}"
    _say({**_facts(snapshot), "restored": True, "before": aside}, text, as_json)
    return EXIT_OK


@command_backup.command("export", short_help="Write a snapshot out as Markdown or JSON lines.")
@click.argument("target")
@click.argument("name", required=False)
@_dir_option
@click.option("--format", "form", type=click.Choice(["markdown", "jsonl"]), default="markdown", show_default=True)
@_json_option
@palace_options
def export(context: Context, target: str, name: str | None, folder: str | None, form: str, as_json: bool) -> int:
    """Write the drawers and facts of the snapshot NAME (default: this palace's newest) into the new folder TARGET.

    Markdown: one file a room. JSON lines: drawers.jsonl and facts.jsonl. Neither needs mempalace.

    \b
    Example:
      mempalace-broker backup export ~/memory-as-text

    \b
    Exit codes: 0 done, 1 there is no such snapshot, or it is not good, 73 files can't be placed.
    """
    from .export import Form
    from .export import export as write_out
    from .snapshots import find_snapshot, snapshot_folder

    snapshot = find_snapshot(context, snapshot_folder(context, folder, make=False), name)
    snapshot.check()
    counts = write_out(snapshot, target, Form(form))
    text = f"{target}: {counts['drawers']} drawers, {counts['facts']} facts of {snapshot.name}"
    _say({**_facts(snapshot), "target": target, **counts}, text, as_json)
    return EXIT_OK


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    facts = {name: snapshot.manifest.get(name) for name in ("created", "palace", "broker", "scheduled")}
    return {
        "name": snapshot.name,
        "path": snapshot.path,
        "bytes": snapshot.bytes,
        "files": len(snapshot.files),
        "drawers_in": server_backend(os.path.join(snapshot.path, "palace")) or None,
        **facts,
    }


def _left_out(snapshot: Snapshot) -> str:
    """Say what a snapshot does not hold, for people."""
    backend = server_backend(os.path.join(snapshot.path, "palace"))
    if not backend:
        return ""
    return f"\nIt holds graph, tunnels, events and config. The drawers are in {backend}: back up that database as well."


def _size(snapshot: Snapshot) -> str:
    from ..console import size

    created = snapshot.manifest.get("created")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created)) if isinstance(created, int | float) else "?"
    return f"{size(snapshot.bytes / 1024)} in {len(snapshot.files)} files, of {when}"


def _say(facts: dict[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(facts) if as_json else text)
