"""Linux that behaves as macOS does where the two differ, for one process: tests/data/darwin.c under LD_PRELOAD.

In that process the code for macOS runs, with a kqueue made of epoll; or, where a test shows what happens without it,
the code for Linux.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker.system import kernel

ROOT = Path(__file__).resolve().parents[1]
_PRELUDE = """
import os, select, sys
mended = sys.argv.pop(1) == "mended"
sys.path[:0] = [sys.argv[1] + "/src", sys.argv.pop(1)]
from tests.fakes import kqueue
kqueue.install()
select.PIPE_BUF = 512
from mempalace_broker.system import kernel
kernel.MACOS = mended
"""


def compiled(folder: Path) -> Path:
    """The library, made in `folder`; the test is skipped where nothing can compile or preload it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not kernel.LINUX or compiler is None:
        pytest.skip("the rehearsal needs Linux and a C compiler")
    library = folder / "darwin.so"
    source = ROOT / "tests" / "data" / "darwin.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def as_on_macos(library: Path, faults: str) -> dict[str, str]:
    """Variables for a process: the named differences hold in it, see darwin.c."""
    return {"LD_PRELOAD": str(library), "REHEARSAL": faults}


def program(code: str, *words: str, mended: bool = True) -> list[str]:
    """A Python that runs `code`, with or without the package's code for macOS."""
    return [sys.executable, "-c", _PRELUDE + code, "mended" if mended else "as it is", str(ROOT), *words]
