"""Turns every way in which a command can end into an exit code and one line on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_FAILURE, EXIT_OK, BrokerError, file_step
from ..protocol.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

PROG = "mempalace-broker"
_WIDEST = 10_000
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # as a shell reports a command that SIGPIPE ended
COMPLETE_VARIABLE = "_MEMPALACE_BROKER_COMPLETE"  # by which a shell asks; the name that click's scripts use
DEBUG_VARIABLE = "MEMPALACE_BROKER_TRACEBACK"


def guarded(command: click.Command, argv: Sequence[str]) -> int:
    """Run `command`, which returns its exit code; every way to fail ends here."""
    _settle_streams()
    code = _outcome(command, argv)
    for stream in (sys.stdout, sys.stderr):
        _flush_or_drop(stream)
    return code


def _outcome(command: click.Command, argv: Sequence[str]) -> int:
    try:
        if COMPLETE_VARIABLE in os.environ:
            from click.shell_completion import shell_complete  # late: for a shell that asks

            return shell_complete(command, {}, PROG, COMPLETE_VARIABLE, os.environ[COMPLETE_VARIABLE])
        result = _invoke(command, list(argv))
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.ClickException as exc:
        with contextlib.suppress(OSError):  # stderr, as in `say_error`
            exc.show(file=sys.stderr)
        return exc.exit_code
    except BrokerError as exc:
        say_error(exc.message, exc.hint)
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:
        return EXIT_PIPE
    except Exception as exc:  # noqa: BLE001 - the last line of defence: people get a sentence, not a traceback
        return _interrupted() if _comes_of_an_interrupt(exc) else _unexpected(exc)


def _settle_streams() -> None:
    """Replace what the encoding lacks; let a closed stdout or stderr take everything, and a closed stdin be empty."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the rest of our life
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of our life
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def _invoke(command: click.Command, args: list[str]) -> object:
    """Run `command` and return its result. Its `main` would handle BrokenPipeError itself and exit with 1."""
    try:
        with command.make_context(PROG, args) as context:
            return command.invoke(context)
    except click.exceptions.Exit as exc:  # --help and --version
        return exc.exit_code


def say(line: str) -> None:
    """Print one line that quotes a path or what others wrote."""
    click.echo(printable(line, _WIDEST))


def say_error(message: str, hint: str = "", *, before: str = "") -> None:
    """Print one line on stderr: what is wrong, and the step that helps. Where stderr fails, the exit code remains."""
    text = f"{PROG}: {message}" + (f" Hint: {hint}" if hint else "")
    with contextlib.suppress(OSError):
        print(before + printable(" ".join(text.split("\n")), _WIDEST), file=sys.stderr)


def _interrupted() -> int:
    say_error("interrupted.", before="\n")  # the terminal has shown ^C on this line
    return EXIT_INTERRUPTED


def _comes_of_an_interrupt(exc: BaseException | None) -> bool:
    """Whether this exception took the place of a KeyboardInterrupt, as some do in the middle of an import."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, KeyboardInterrupt):
            return True
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__
    return False


def _unexpected(exc: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        raise exc
    if isinstance(exc, OSError) and (step := file_step(exc)):
        what = f"cannot use {exc.filename}" if exc.filename else "cannot write"
        say_error(f"{what}: {exc.strerror}.", f"{step}, then try again")
        return EXIT_FAILURE
    say_error(
        f"unexpected {type(exc).__name__}: {exc}.",
        f"look at `{PROG} logs`; repeat with {DEBUG_VARIABLE}=1 for a traceback to report",
    )
    return EXIT_FAILURE


def _flush_or_drop(stream: TextIO) -> None:
    """Send what can't be written to /dev/null: Python flushes again at exit, and would complain and change the code."""
    try:
        stream.flush()
    except OSError:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)
