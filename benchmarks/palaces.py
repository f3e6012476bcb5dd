"""Palaces with many drawers: made once for each version of mempalace, copied for every run."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import texts
from benchmarks.common import DEV, Engine
from benchmarks.suite import say
from benchmarks.world import base_env, make_home

FOLDER = DEV / "palaces"
EMBEDDED = 2_000  # notes; the vector of every later one is a mixture of two of theirs
_SIDE = Path(__file__).resolve().parent / "engine_side.py"


def prepared(which: Engine, count: int) -> Path:
    """A palace directory with `count` drawers and one more; not to be opened, only copied."""
    palace = FOLDER / f"{which.version}-{count}"
    if palace.exists():
        return palace
    FOLDER.mkdir(parents=True, exist_ok=True)
    vectors = _vectors(which)
    say(f"making a palace of {count} drawers with mempalace {which.version} ...")
    with _home(which) as home:
        new = home / ".mempalace" / "palace"
        _side(which, home, "fill", str(new), str(count), str(vectors), stdin=json.dumps(texts.notes(count)))
        shutil.move(new, palace)
    return palace


def _vectors(which: Engine) -> Path:
    path = FOLDER / f"vectors-{EMBEDDED}.npy"
    if not path.exists():
        say(f"embedding {EMBEDDED} notes, once: takes a minute ...")
        with _home(which) as home:
            _side(which, home, "embed", str(path), stdin=json.dumps(texts.notes(EMBEDDED)))
    return path


@contextlib.contextmanager
def _home(which: Engine) -> Iterator[Path]:
    path = FOLDER / f"making-{which.version}"
    shutil.rmtree(path, ignore_errors=True)
    make_home(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _side(which: Engine, home: Path, *args: str, stdin: str) -> None:
    argv = [str(which.python), "-P", str(_SIDE), *args]
    subprocess.run(argv, input=stdin.encode(), env=base_env(home), check=True, stdout=subprocess.DEVNULL)
