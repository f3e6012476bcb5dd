"""How the commands of the devbox print and end: timestamped lines, one line for an error, an exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

from .errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_PIPE, DevboxError

if TYPE_CHECKING:
    from types import FrameType

DISTRIBUTION = "pi-devbox"  # whose version the commands show
DEBUG_VARIABLE = "PI_DEVBOX_TRACEBACK"


def guarded(command: click.Command, prog: str, *, interruptible: bool = True) -> int:
    """Run `command` and return its exit code. No exception but SystemExit leaves; `interruptible`: by Ctrl-C."""
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        result = _invoke(command, prog, sys.argv[1:])
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.ClickException as exc:
        exc.show(file=sys.stderr)
        return exc.exit_code
    except DevboxError as exc:
        say_error(prog, str(exc))
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        print(file=sys.stderr)  # the terminal has shown ^C on this line
        say_error(prog, "stopped.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _quiet_stdout()
        return EXIT_PIPE
    except Exception as exc:  # noqa: BLE001 - the last line of defence: people get a sentence, not a traceback
        return _unexpected(prog, exc)


def _invoke(command: click.Command, prog: str, args: list[str]) -> object:
    """Invoke `command`. Its own `main` would catch a BrokenPipeError and exit with 1."""
    try:
        with command.make_context(prog, args) as context:
            return command.invoke(context)
    except click.exceptions.Exit as exc:  # --help and --version
        return exc.exit_code


def say(text: str) -> None:
    """Print `text` on stdout after the time, and flush. Line breaks in it are kept."""
    print(_printable(f"[{time.strftime('%H:%M:%S')}] {text}", sys.stdout), flush=True)


def clean(text: str) -> str:
    """Replace unprintable characters: the name of a file can hold escape sequences, or bytes that are not text."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def say_error(prog: str, text: str) -> None:
    """Print one line on stderr."""
    print(_printable(f"{prog}: {' '.join(text.split())}", sys.stderr), file=sys.stderr, flush=True)


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise SystemExit(128 + n), so that `finally` blocks run.

    A signal that is ignored stays ignored (nohup).
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _printable(text: str, stream: TextIO) -> str:
    """Clean `text`, and replace what the encoding of `stream` lacks."""
    encoding = stream.encoding or "utf-8"
    return clean(text).encode(encoding, "replace").decode(encoding)


def _unexpected(prog: str, exc: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        raise exc
    say_error(prog, f"unexpected {type(exc).__name__}: {exc}. Hint: repeat with {DEBUG_VARIABLE}=1 and report that")
    return EXIT_FAILURE


def _quiet_stdout() -> None:
    """Send stdout to /dev/null: its reader has left, and buffered output must not raise at exit."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
