"""`demo`: see it work, with real text, real sessions and a real engine, in a directory of its own."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import EXIT_FAILURE, EXIT_OK, BrokerError, UsageError
from ...system import kernel
from ...system.find_engine import SETTING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.paths import Context
    from .home import DemoHome
    from .show import Show
    from .story import Story


@click.command("demo", short_help="See it work, in a directory of its own.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="Where it works. Default: a new temp dir."
)
@click.option("--keep", is_flag=True, help="Keep the directory, with palace and logs.")
@click.option(
    "--input",
    "texts",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of your own .md, .txt or .rst files. Default: three texts that come with the demo.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the show.")
def command_demo(folder: Path | None, keep: bool, texts: Path | None, as_json: bool) -> int:
    """Fill a palace through three agent sessions at once, kill its engine in the middle, find everything.

    Everything is real: text files, mp-shim sessions, broker, mempalace. It works in a HOME of its own in
    a directory of its own, so nothing of yours is touched, and ends with the line for your agent's config.
    It uses the mempalace that every command finds, and the embedding model from your cache, from its
    download, or from PyPI.

    \b
    Example:
      mempalace-broker demo
      mempalace-broker demo --input ~/notes --keep --dir /tmp/demo

    \b
    Exit codes: 0 every check held, 1 one did not, 70 no mempalace was found.
    """
    from ..cleanup import single_interrupt
    from .show import Show

    show = Show(quiet=as_json)
    with single_interrupt(), own_folder("demo", folder, keep=keep) as root:
        report = perform(root, texts, show)
        if as_json:
            click.echo(json.dumps(report))
        elif keep:
            show.print(f"\nKept: {root}")
    return EXIT_OK if report["ok"] else EXIT_FAILURE


@contextlib.contextmanager
def own_folder(name: str, folder: Path | None = None, *, keep: bool = False) -> Iterator[Path]:
    """A directory to work in, removed afterwards unless it is to be kept; it was empty or not there.

    Args:
        name: of who works there. folder: where, a new temporary one if not given.
    """
    from ..cleanup import removed_at_the_end

    if folder is None:
        # on macOS $TMPDIR is so long that no socket's path fits below it
        root = Path(tempfile.mkdtemp(prefix=f"mempalace-{name}-", dir="/tmp" if kernel.MACOS else None))
    else:
        root = folder.absolute()
        if root.exists() and any(root.iterdir()):
            raise UsageError(f"{root} is not empty.", hint="give a --dir that is empty or does not exist")
        root.mkdir(parents=True, exist_ok=True)
    if keep:
        yield Path(os.path.realpath(root))
    else:
        with removed_at_the_end(str(root)) as place:
            yield place


def perform(root: Path, texts: Path | None, show: Show) -> dict[str, Any]:
    """Run the whole demo in an empty directory; the report.

    Raises:
        EngineNotFound, ModelError: with the step that helps.
    """
    from ..status import ask_status
    from . import home as homes
    from .story import Story
    from .texts import load

    begun = time.monotonic()
    pieces = load(texts)
    files = len({piece.source for piece in pieces})
    show.print(f"[bold]mempalace-broker demo[/] in {root}: {len(pieces)} pieces of {files} text files")
    home = homes.make(root, os.environ, show.note)
    context = _context(home)
    story = Story(home, pieces, show, lambda: ask_status(context))
    try:
        try:
            story.run()
        except BrokerError as exc:
            story.check("the demo ran to its end", False, str(exc))
        return _report(home, context, story, show, time.monotonic() - begun)
    finally:
        _end(story, context)


def _end(story: Story, context: Context) -> None:
    """End every process of the demo, whatever happened."""
    from ..cleanup import end_stragglers, uninterrupted
    from ..stop import stop

    with uninterrupted():
        for agent in list(story.agents):
            with contextlib.suppress(OSError):
                agent.kill()
        try:
            stop(context, now=True, why="the demo is over")
        finally:
            end_stragglers(str(story.home.home))


def _context(home: DemoHome) -> Context:
    from ...route.discover import meant_palace
    from ...system.paths import Context

    identity = meant_palace(home.env)
    return Context(identity, home.env)


def _report(home: DemoHome, context: Context, story: Story, show: Show, seconds: float) -> dict[str, Any]:
    from ..status import ask_status
    from .configs import agent_configs
    from .show import timing_rows

    status = ask_status(context)
    report = {
        "ok": bool(story.checks) and all(check["ok"] for check in story.checks),
        "seconds": round(seconds, 2),
        "checks": story.checks,
        "facts": story.facts,
        "calls": timing_rows(story.agents),
        "memory": _memory(status, story),
        "engine": {"version": home.engine.version, "interpreter": home.engine.interpreter},
        "status": status,
        "configs": agent_configs(home.shim),
        "dir": str(home.root),
    }
    _show_end(report, home, show)
    return report


def _show_end(report: dict[str, Any], home: DemoHome, show: Show) -> None:
    """Figures, the status, the lines for agents, the result."""
    from ..status_view import render_status

    show.step("what was measured")
    show.figures(report["calls"], report["memory"])
    show.step("mempalace-broker status")
    if report["status"]["running"]:
        for part in render_status(report["status"]):
            show.print(part)
    show.step("for your agent (mp-shim instead of mempalace-mcp)")
    for agent, text in report["configs"].items():
        show.note(agent)
        show.verbatim(text)
    if os.environ.get(SETTING):
        show.note(f"Agents may not pass {SETTING} on, so put it into config.toml (`doctor` says where):")
        show.verbatim(f"[broker]\nengine = {json.dumps(home.engine.interpreter)}")
    verdict = "[bold green]Every check held[/]" if report["ok"] else "[bold red]A check failed[/]"
    show.print(f"\n{verdict} ({len(report['checks'])} checks, {report['seconds']:.1f} s).")


def _memory(status: dict[str, Any], story: Story) -> dict[str, int]:
    """Resident megabytes of everything, now."""
    import psutil

    def rss(pid: int) -> int:
        try:
            return int(psutil.Process(pid).memory_info().rss) >> 20
        except psutil.Error:
            return 0

    return {
        "sessions": len(story.agents),
        "shims_mb": sum(rss(agent.pid) for agent in story.agents),
        "broker_mb": int(status.get("broker", {}).get("rss_kb") or 0) >> 10,
        "engine_mb": int(status.get("engine", {}).get("rss_kb") or 0) >> 10,
    }
