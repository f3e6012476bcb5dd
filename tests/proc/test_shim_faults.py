"""A shim in which something fails that should not: every open request ends with one error, and the next one works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mempalace_broker
from mempalace_broker.errors import EXIT_UNAVAILABLE, NOT_EXECUTED, OUTCOME_UNKNOWN
from mempalace_broker.system.private import VARIABLE as PRIVATE
from tests.fakes.fake_broker import FakeBroker, answer, environment
from tests.proctools import eventually
from tests.rpcproc import RpcProcess

READ, WRITE = "mempalace_search", "mempalace_add_drawer"
# raises EXCEPTION in OWNER.NAME for as long as the file FLAG is there
CODE = """
import importlib, os, sys
module, owner, name, exception, flag = sys.argv[1:6]
del sys.argv[1:6]
holder = importlib.import_module("mempalace_broker." + module)
holder = getattr(holder, owner) if owner else holder
real = getattr(holder, name)
def faulty(*args, **more):
    if os.path.exists(flag):
        raise eval(exception)
    return real(*args, **more)
setattr(holder, name, faulty)
from mempalace_broker.shim.main import entry
entry()
"""
POINTS = [
    "shim.dialer Dialer dial",
    "shim.dialer Dialer view",
    "shim.dialer Dialer verify_palace",
    "route.finder RouteFinder step",
    "shim.machine.protocol ShimProtocol connected",
    "shim.machine.protocol ShimProtocol tick",
    "shim.machine.protocol ShimProtocol next_deadline",
    "shim.machine.protocol ShimProtocol _request",
    "shim.machine.protocol ShimProtocol broker_data",
    "shim.machine.protocol ShimProtocol lost",
    "shim.machine.delivery Delivery send",
    "shim.machine.delivery Delivery connection_lost",
    "shim.machine.reconnect ReconnectPolicy welcomed",
    "shim.pump Pump _flush_broker",
    "shim.pump Pump _flush_notices",
    "shim.pump Pump _read_broker",
]
EXCEPTIONS = ["MemoryError()", "RecursionError()", "OSError(24, 'Too many open files')", "ModuleNotFoundError('gone')"]


def start(folder: Path, point: str, exception: str) -> RpcProcess:
    module, owner, name = point.split()
    argv = [sys.executable, "-c", CODE, module, owner, name, exception, str(folder / "flag")]
    return RpcProcess(argv, env=environment(folder), cwd=folder, log=folder / "shim.log")


def works(shim: RpcProcess) -> bool:
    told = shim.request("tools/call", {"name": READ, "arguments": {}}, timeout=10)
    assert "result" in told or told["error"]["code"] == NOT_EXECUTED
    return "result" in told


@pytest.mark.parametrize("point", POINTS)
def test_fault_ends_open_requests_and_nothing_else(point: str, folder: Path, broker: FakeBroker) -> None:
    exception = EXCEPTIONS[POINTS.index(point) % len(EXCEPTIONS)]
    broker.script = lambda m: None if "hang" in str(m) else answer(m)
    with start(folder, point, exception) as shim:
        shim.initialize()
        read = shim.start_request("tools/call", {"name": READ, "arguments": {"query": "hang"}})
        write = shim.start_request("tools/call", {"name": WRITE, "arguments": {"content": "hang"}})
        broker.wait_for("tools/call", 2)
        (folder / "flag").touch()
        broker.drop()
        third = shim.start_request("tools/call", {"name": READ, "arguments": {"query": "hang"}})
        codes = [shim.wait_response(id_, 20).get("error", {}).get("code") for id_ in (read, write, third)]
        assert codes[::2] == [NOT_EXECUTED, NOT_EXECUTED]
        assert codes[1] in (OUTCOME_UNKNOWN, NOT_EXECUTED), "the latter where the broker could still be asked"
        (folder / "flag").unlink()
        assert eventually(lambda: works(shim), 20)
        assert shim.running
        assert "Traceback" not in shim.stderr()
        assert shim.finish(40) == 0
        assert shim.untaken() == []


# lets a program of ours run where socket(AF_UNIX) is EPERM, as sandboxes of agents have it
SANDBOX = """
import ctypes, os, platform, struct, sys
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
step = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
program = (
    step(0x20, 0, 0, 0) + step(0x15, 0, 3, number) + step(0x20, 0, 0, 16) + step(0x15, 0, 1, 1)
    + step(0x06, 0, 0, 0x00050001) + step(0x06, 0, 0, 0x7FFF0000)
)
text = ctypes.create_string_buffer(program)
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_sandbox_without_unix_sockets_is_named_at_once(folder: Path) -> None:
    programs = Path(sys.executable).parent
    env = {"HOME": str(folder), "PATH": os.environ["PATH"], PRIVATE: str(folder / "private")}
    inside = [sys.executable, "-c", SANDBOX]
    argv = [*inside, str(programs / "mp-shim"), "--palace", str(folder / "p")]
    with RpcProcess(argv, env=env, cwd=folder, log=folder / "shim.log") as shim:
        told = shim.request("tools/call", {"name": READ, "arguments": {}}, timeout=10)["error"]
        assert told["code"] == NOT_EXECUTED
        assert "may not use unix sockets" in told["message"]
        assert "sandbox" in told["message"]
    argv = [*inside, str(programs / "mempalace-broker"), "status", "--palace", str(folder / "p")]
    done = subprocess.run(argv, env=env, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (EXIT_UNAVAILABLE, b"")
    assert b"may not use unix sockets" in done.stderr


def test_a_package_that_was_moved_away_ends_no_shim(folder: Path) -> None:
    """uv prunes its cache, pipx reinstalls: a shim starts a broker with code that is gone, then there again."""
    site = folder / "site"
    shutil.copytree(Path(mempalace_broker.__file__).parent, site / "mempalace_broker")
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from mempalace_broker.shim.main import entry; entry()"
    argv = [sys.executable, "-S", "-B", "-c", code, "--palace", str(folder / "palace")]
    env = {"HOME": str(folder), "PATH": os.environ["PATH"], PRIVATE: str(folder / "private")}
    with (
        FakeBroker(str(folder / "broker.sock")) as broker,
        RpcProcess(argv, env=env, cwd=folder, log=folder / "shim.log") as shim,
    ):
        shim.initialize()
        assert works(shim)
        (site / "mempalace_broker").rename(site / "gone")
        broker.die()
        told = shim.request("tools/call", {"name": READ, "arguments": {}}, timeout=20)["error"]
        assert told["code"] == NOT_EXECUTED
        assert "install it again" in told["message"]
        (site / "gone").rename(site / "mempalace_broker")
        (folder / "broker.sock").unlink()
        with FakeBroker(broker.path):
            assert eventually(lambda: works(shim), 20)
        assert "Traceback" not in shim.stderr()
        assert shim.finish() == 0
