"""Bring the files of a skeleton into a home: read, let `merge` decide, write. IO only.

The manifest in the home holds what the last image brought, and is written last: after a kill in the middle the next
start does the rest, because a merge that is done again changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from .merge import merge_file

MANIFEST = Path(".local/state/devbox/brought.json")
WAIT_S = 10


def fill(skeleton: Path, home: Path, foreign: Sequence[Path], say: Callable[[str], None]) -> None:
    """Bring everything in `skeleton` into `home`. A file that can't be read or written is said and skipped.

    What exists below the `foreign` mount points is the host's: it is left alone.
    """
    manifest = home / MANIFEST
    try:
        manifest.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(manifest.parent / "lock"):
            before = _read_manifest(manifest, say)
            after = _fill(skeleton, home, foreign, before, say)
            if after != before:
                _write(manifest, json.dumps(after, indent=1), 0o600)
    except TimeoutError:
        say(f"another container has been filling {home} for {WAIT_S} s: nothing is brought into it. Hint: start again")
    except OSError as exc:
        say(f"nothing is brought into {home}: {exc}")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock against other containers with this home, for which it waits at most WAIT_S."""

    def give_up(_number: int, _frame: object) -> NoReturn:
        raise TimeoutError

    with path.open("a") as lock:
        before = signal.signal(signal.SIGALRM, give_up)
        signal.alarm(WAIT_S)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        yield


def _fill(
    skeleton: Path, home: Path, foreign: Sequence[Path], before: dict[str, str], say: Callable[[str], None]
) -> dict[str, str]:
    """Bring each file; return what is known to have been brought, by this image or an earlier one."""
    after = dict(before)
    for source in sorted(skeleton.rglob("*")):
        name = str(source.relative_to(skeleton))
        target = home / name
        try:
            if source.is_dir():
                if not os.path.lexists(target):
                    target.mkdir(mode=0o700)
            elif not _belongs_to_user(target, home, foreign) and _bring(source, target, before.get(name), say):
                after[name] = _read(source)
        except OSError as exc:
            missing = "is missing and " if not os.path.lexists(target) else ""
            say(f"{target} {missing}can't be written: skipped ({exc.strerror}; read-only mount?)")
    return after


def _belongs_to_user(target: Path, home: Path, foreign: Sequence[Path]) -> bool:
    """Whether it is left alone: a link, even if it dangles, a file behind a link, or a file of the host."""
    if target.is_symlink() or not target.exists():
        return target.is_symlink()
    behind_link = target.resolve() != home.resolve() / target.relative_to(home)
    return behind_link or any(target.is_relative_to(point) for point in foreign)


def _bring(source: Path, target: Path, brought: str | None, say: Callable[[str], None]) -> bool:
    """Bring one file; return whether nothing is left to do."""
    there = target.exists()
    merged = merge_file(target.name, brought, _read(target) if there else None, _read(source))
    if merged.text is not None:
        _write(target, merged.text, (target if there else source).stat().st_mode & 0o777)
    if merged.note:
        say(f"{target} {merged.note}. Hint: compare it with {source}")
    return merged.settled


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def _write(target: Path, text: str, mode: int) -> None:
    """Replace a file as a whole: a reader, and whoever is killed, sees the old one or the new one."""
    for left in target.parent.glob(f"{target.name}.devbox.*"):  # by a start that was killed: no other one runs
        left.unlink()
    handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.devbox.", dir=target.parent)
    try:
        with open(handle, "wb") as file:
            file.write(text.encode(errors="surrogateescape"))
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):  # renamed, as it should be
            os.unlink(temporary)


def _read_manifest(path: Path, say: Callable[[str], None]) -> dict[str, str]:
    """What was brought before, by file; nothing in a home without a manifest."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()):
        return found
    say(f"{path} is damaged and is written anew: this start brings only what is missing")
    return {}
