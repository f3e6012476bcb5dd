"""A broker "on another kernel", on this one: a mount namespace with a boot id and lock files of its own.

Two things make another kernel: locks do not cross, and its boot id differs. Bind mounts, which need root, give both.
Names and records are seen at once here; tests/vm has a real second kernel, and tests/model all that may be seen late.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import uuid
from typing import Any

import pytest

from tests import proctools
from tests.harness import Broker, World, eventually, kill_pid
from tests.proctools import is_running

_ENTER = """
set -e
mount --bind "$1" /proc/sys/kernel/random/boot_id
mount --bind "$2" "$4/broker.lock"
mount --bind "$3" "$4/engine.lock"
mount --bind "$5" "$6"
shift 6
exec "$@"
"""


def require_namespaces() -> None:
    """Skip where no mount namespace can be made; in CI that is a failure."""
    tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True) if _unshare() else None
    if tried is None or tried.returncode:
        message = "mount namespaces need root"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)


def _unshare() -> bool:
    return shutil.which("unshare") is not None


class Far:
    """One foreign kernel that sees the world's palace. Attributes: boot; report: what its broker told at its start."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.boot = str(uuid.uuid4())
        self.folder = world.root / f"far-{self.boot[:8]}"
        self.folder.mkdir()
        (self.folder / "boot_id").write_text(self.boot + "\n")
        for name in ("broker.lock", "engine.lock"):
            (self.folder / name).touch(mode=0o600)
        (self.folder / "locks").mkdir()  # mempalace's own
        self.process: subprocess.Popen[bytes] | None = None
        self.report: dict[str, Any] = {}

    def start(self, timeout: float = 40.0) -> dict[str, Any]:
        """Start a broker there in direct mode; its report."""
        palace, root = self.world.palace, self.world.state_root
        (palace / "broker-claims").mkdir(parents=True, exist_ok=True, mode=0o700)
        (root / "locks").mkdir(exist_ok=True)
        for name in ("broker.lock", "engine.lock"):
            (palace / name).touch(mode=0o600)
        read, write = os.pipe()
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"]
        argv += [str(self.folder / name) for name in ("boot_id", "broker.lock", "engine.lock")] + [str(palace)]
        argv += [str(self.folder / "locks"), str(root / "locks")]
        argv += [sys.executable, "-P", "-m", "mempalace_broker.broker", "--direct", "--palace", str(palace)]
        argv += ["--palace-by", "config", "--graph", str(root / "knowledge_graph.sqlite3"), "--root", str(root)]
        argv += ["--started-by", "test", "--start-fd", str(write)]
        log = self.world.root / f"far-{self.boot[:8]}.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                argv, env=self.world.env, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(write,),
                start_new_session=True,
            )  # fmt: skip
        os.close(write)
        try:
            ready, _, _ = select.select([read], [], [], timeout)
            assert ready, f"no report in {timeout:g} s"
            line = os.read(read, 65536)
        finally:
            os.close(read)
        self.report = json.loads(line) if line else {"state": "died", "log": log.read_text()}
        return self.report

    @property
    def name(self) -> str:
        return f"broker-direct-{self.boot.replace('-', '')[:8]}"

    def broker(self) -> Broker:
        return Broker(json.loads((self.world.state_root / f"{self.name}.json").read_bytes()))

    def exit_reason(self, timeout: float = 20.0) -> str:
        """Why it left; waits until it has."""
        assert self.process is not None
        self.process.wait(timeout)
        note = json.loads(self.world.state(f"{self.name}-exit.json").read_bytes())
        return str(note["reason"])

    def tree(self) -> list[int]:
        """The broker and its engine."""
        assert self.process is not None
        children = [pid for pid in proctools.pids() if proctools.parent_of(pid) == self.process.pid]
        return [pid for pid in (self.process.pid, *children) if is_running(pid)]

    def stop(self) -> list[int]:
        """Pause the whole kernel, seen through; the pids."""
        tree = self.tree()
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(proctools.state_of(pid) == "T" for pid in tree), what="a tree that is stopped")
        return tree

    def resume(self, tree: list[int]) -> None:
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def inside(self, *argv: str) -> None:
        """Run a command in its mount namespace."""
        assert self.process is not None
        subprocess.run(["nsenter", "-t", str(self.process.pid), "--mount", *argv], check=True, capture_output=True)

    def close(self) -> None:
        """End what is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """The container is deleted."""
        for pid in self.tree():
            kill_pid(pid)
        assert self.process is not None
        self.process.wait(10)
