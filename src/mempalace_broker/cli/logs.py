"""`logs`: print the last lines of the broker's log, or follow it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_NOT_RUNNING, EXIT_OK
from ..protocol.text import printable
from .context_options import palace_options
from .outcome import say_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..system.clock import Clock
    from ..system.paths import Context

FOLLOW_S = 0.2
_MOST = 64 << 20  # bytes of the log that are read
_WIDEST = 10_000  # characters of one line that are shown


@click.command("logs", short_help="The last lines of the broker's log.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(0), help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines, until Ctrl-C.")
@click.option("--previous", is_flag=True, help="The older log (broker.log.1), from before the last rotation.")
@palace_options
def command_logs(context: Context, lines: int, follow: bool, previous: bool) -> int:
    """Print the last lines of broker.log: starts and stops with their reasons, engine failures, refusals.

    \b
    Example:
      mempalace-broker logs -n 200
      mempalace-broker logs -f

    \b
    Exit codes: 0, or 3 if there is no log: no broker ever ran for this palace.
    """
    from ..system.logs import PREVIOUS, tail

    if why := context.files.private.problem():
        say_error(f"no log is kept: {why}.", "mempalace-broker doctor")
        return EXIT_NOT_RUNNING
    path = context.files.log + (PREVIOUS if previous else "")
    if not os.path.exists(path):
        say_error(f"there is no {path}.", "" if previous else "start a broker: mempalace-broker ensure")
        return EXIT_NOT_RUNNING
    for text in tail(path, lines, _MOST):
        click.echo(printable(text, _WIDEST))
    if follow and not previous:
        _follow(path, context.clock)
    return EXIT_OK


def _follow(path: str, clock: Clock) -> None:
    try:
        for text in grown(path, clock):
            sys.stdout.write("\n".join(printable(line, _WIDEST) for line in text.split("\n")))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def grown(path: str, clock: Clock) -> Iterator[str]:
    """Yield what is appended to `path` from now on, across rotations. Files send no event, so this polls."""
    file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below, replaced at a rotation
    try:
        file.seek(0, os.SEEK_END)
        while True:
            text = file.read()
            if text:
                yield text
                continue
            if _replaced(file.fileno(), path):
                rest = file.read()  # written between our last read and the rotation
                if rest:
                    yield rest
                file.close()
                file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - as above
                continue
            clock.sleep(FOLLOW_S)
    finally:
        file.close()


def _replaced(fd: int, path: str) -> bool:
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False  # between rename and create
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) != (now.st_dev, now.st_ino)
