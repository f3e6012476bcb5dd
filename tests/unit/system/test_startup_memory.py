"""A process that keeps its memory to itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src"
CODE = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from mempalace_broker.system.startup import keep_memory_private
at_first = {*sys.modules, "_ctypes"}
import ctypes
if os.geteuid() == 0:  # root may read everything; but nobody else may read root's Python
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after every start of a program; setuid took it away
for name in set(sys.modules) - at_first:
    del sys.modules[name]
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
keep_memory_private()
child = os.fork()
if not child:
    try:
        open(f"/proc/{os.getppid()}/environ", "rb").close()
    except PermissionError:
        os._exit(13)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(os.listdir("/proc/self/fd")) > 0)
child = os.fork()
if not child:
    os.abort()
print(os.WCOREDUMP(os.waitpid(child, 0)[1]), sorted({"ctypes", "typing", "enum"} & set(sys.modules)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has this")
def test_no_other_process_of_the_user_reads_it() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CODE, str(SOURCE)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n")[:2] == ["13 True", "False []"], done.stderr
