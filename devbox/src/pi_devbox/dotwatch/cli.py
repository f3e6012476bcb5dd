"""The command line of dot-watch."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time

import click

from ..errors import ConfigError, DevboxError
from ..outcome import DISTRIBUTION, end_on_signals, say
from .render import LAYOUTS, Drawing, check_engine
from .watch import Watcher

FORMATS = ("png", "svg", "pdf", "jpg", "gif", "webp")
INTERVAL_VARIABLE = "DOT_WATCH_INTERVAL"


def split(words: tuple[str, ...]) -> tuple[list[str], str, float]:
    """Split FILE... [LAYOUT] [DPI] into files, layout (or "") and dpi (or 0). The first word is always a file."""
    rest, layout, dpi = list(words), "", 0.0
    if len(rest) > 1 and re.match(r"\+?[0-9]", rest[-1]) and not os.path.exists(rest[-1]):
        dpi = _dpi(rest.pop())
    if len(rest) > 1 and rest[-1] in LAYOUTS:
        layout = rest.pop()
    return rest, layout, dpi


def _dpi(text: str) -> float:
    try:
        dpi = float(text)
    except ValueError:
        dpi = math.nan
    if not 1 <= dpi <= 2400:
        raise click.BadParameter(f"{text!r} is neither a file nor a dpi: a number from 1 to 2400.")
    return dpi


def interval() -> float:
    """Seconds between two looks, from the environment; 1 by default. Raise ConfigError for a nonsensical value."""
    text = os.environ.get(INTERVAL_VARIABLE, "").strip() or "1"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.01 <= seconds <= 3600:
        raise ConfigError(
            f"{INTERVAL_VARIABLE}={text!r} is not a number of seconds from 0.01 to 3600.",
            hint=f"export {INTERVAL_VARIABLE}=1",
        )
    return seconds


def tell(text: str) -> None:
    """Print a message with the time; lines after the first are indented."""
    say(text.replace("\n", "\n    "))


@click.command("dot-watch", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("words", nargs=-1, required=True, metavar="FILE.dot... [LAYOUT] [DPI]")
@click.option("--once", is_flag=True, help="Draw everything now and exit, with 1 if anything failed.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="png",
    show_default=True,
    help="Format of the pictures; Studio shows png.",
)
@click.option(
    "--limit",
    type=click.FloatRange(0.1, 86400),
    metavar="SECONDS",
    help="End a drawing that takes longer.  [default: no limit]",
)
@click.version_option(package_name=DISTRIBUTION, prog_name="dot-watch")
def dot_watch(words: tuple[str, ...], once: bool, form: str, limit: float | None) -> int:
    """Draw Graphviz files, and again at every save, until Ctrl-C.

    a.dot becomes a.png beside it, replaced as a whole: a viewer never reads half of it. A folder stands
    for the .dot and .gv files in it, new ones too (a.gv becomes a.gv.png). A second graph in a.dot
    becomes a.dot.2.png. LAYOUT is one of dot (the default), neato, fdp, circo, twopi; DPI defaults to 150.
    Images that a graph names are looked for in the current folder, as `dot` does.

    Several files are drawn at once, and what takes long is mentioned. Saving a file ends the drawing of its
    earlier content.

    Files are checked every second, or every $DOT_WATCH_INTERVAL seconds, because a share of another
    kernel (virtiofs) reports no changes. A file with an error, or one that was deleted, is reported and
    stays watched.

    \b
    Example:
      dot-watch graph.dot
      dot-watch graph.dot neato 200
      dot-watch diagrams/
      dot-watch --once --format svg a.dot b.dot

    \b
    Exit codes: 1 no such file, no such engine, or with --once a picture failed; 2 wrong usage;
    78 DOT_WATCH_INTERVAL makes no sense; 130 after Ctrl-C and 143 after SIGTERM, the normal
    ways to end it.
    """
    end_on_signals()
    targets, layout, dpi = split(words)
    pause = interval()
    drawing = Drawing(layout or LAYOUTS[0], dpi or 150, form, limit)
    check_engine(drawing.layout)
    for number, target in enumerate(targets):
        if not os.path.exists(target):
            raise _no_such(target, first=number == 0)
    with contextlib.closing(Watcher(targets, drawing, time.monotonic, tell)) as watcher:
        if once:
            return _once(watcher, targets)
        tell(
            f"watching {' '.join(targets)} ({drawing.layout}, {drawing.dpi:g} dpi, every {pause:g} s) [Ctrl-C to stop]"
        )
        while True:
            watcher.look()  # polls on purpose: see watch.py
            watcher.wait(pause)


def _no_such(target: str, *, first: bool) -> DevboxError:
    if os.path.islink(target):
        return DevboxError(f"{target} is a link to {os.readlink(target)}, which does not exist.", hint="create that")
    hint = f"create it, or see `ls {os.path.dirname(target) or '.'}`"
    if first or os.path.splitext(target)[1] or os.path.dirname(target):
        return DevboxError(f"no such file: {target}.", hint=hint)
    return DevboxError(f"no such file: {target}, and no such layout.", hint=f"one of {', '.join(LAYOUTS)}; or {hint}")


def _once(watcher: Watcher, targets: list[str]) -> int:
    try:
        there = watcher.sources()
    except OSError as exc:
        raise DevboxError(f"can't read {exc.filename}: {exc.strerror}.", hint=f"see `ls -ld {exc.filename}`") from exc
    if not there:
        raise DevboxError(f"no .dot or .gv file in {' '.join(targets)}.", hint="name the files themselves")
    return 0 if watcher.once() else 1
