"""A "container" made of namespaces, without a container engine: the same kernel, everything else its own.

    with Box("one", {world.state_root: "/home/dev/.mempalace"}) as box:
        box.run(["python3", "-c", "print(1)"])                  # CompletedProcess
        world.spawn(box.argv(["mp-shim"]))                      # a process with stdio, driven from here

Mount, pid, uts, ipc and network namespaces of its own; the machine's / below an overlay whose upper layer is in
memory, so nothing that is written inside reaches the machine; /tmp, /run, /proc, HOME and host name of its own.
Directories bound into it are what `docker run -v HOST:INSIDE` gives on plain Linux: the same files, another path.
Processes in it are seen from here under other pids. `kill` ends all of them at once, as `docker kill` does.

Needs root and util-linux (`unshare`, `nsenter`, `setpriv`), and iproute2 for `link`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOME = "/home/dev"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
REPO = Path(__file__).resolve().parent.parent
TOOLS = ("unshare", "nsenter", "setpriv", "pivot_root")
START_S = 20.0

# pid 1 of the box: a shell that waits, because it also reaps what is orphaned. It ends, and the box with it, when its
# standard input does: a killed test run leaves none behind. `umount -l` lets go of the machine's mounts.
_SETUP = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 box {base}
mkdir {base}/upper {base}/work {base}/root
mount -t overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work box {base}/root
root={base}/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs -o ro sys "$root/sys" 2>/dev/null || true
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -p "$root"{home}
{binds}
hostname {name}
cd "$root"
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
ip link set lo up 2>/dev/null || true
echo ready
exec 3<&0 >/dev/null 2>&1
cat <&3 &
wait
"""


def lacking() -> str:
    """Why there can be no box here; empty when there can."""
    if os.uname().sysname != "Linux":
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "namespaces of another container need root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    return f"no {', '.join(missing)} (Debian: apt install util-linux)" if missing else ""


def require_boxes() -> None:
    """Skip the test where there can be no box; in CI that is a failure."""
    import pytest  # benchmarks use boxes too, without pytest

    if lack := lacking():
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(lack)
        pytest.skip(lack)


class Box:
    """One container; a context manager.

    Args:
        name: its host name. binds: directory here -> where it is found inside. home: its HOME.
        own_network: False shares the network of the caller.

    Attributes:
        pid: of its pid 1, as seen from here.
    """

    def __init__(
        self, name: str, binds: Mapping[Path, str] | None = None, *, home: str = HOME, own_network: bool = True
    ) -> None:
        self.name = name
        self.home = home
        self.pid = 0
        self._binds = {**_needed(), **(binds or {})}
        self._namespaces = ["--mount", "--pid", "--uts", "--ipc", *(["--net"] if own_network else [])]
        self._base = ""
        self._process: subprocess.Popen[bytes] | None = None

    # --- life

    def start(self) -> Self:
        """Make it. RuntimeError says what the kernel or a tool refused."""
        self._base = tempfile.mkdtemp(prefix=f"box-{self.name}-")
        script = _SETUP.format(
            base=shlex.quote(self._base),
            home=shlex.quote(self.home),
            name=shlex.quote(self.name),
            binds="\n".join(_bind(str(here), inside) for here, inside in self._binds.items()),
        )
        argv = ["unshare", *self._namespaces, "--fork", "--kill-child=SIGKILL", "sh", "-c", script]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != b"ready\n":  # the script ends at its first failure: EOF
            why = self._process.stderr.read().decode(errors="replace")
            self.stop()
            raise RuntimeError(f"no box: {why}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0])
        return self

    def kill(self) -> None:
        """SIGKILL to its pid 1: the kernel kills everything in it, before this returns."""
        assert self._process is not None
        if self.pid and self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(START_S)

    def stop(self) -> None:
        """End it and all in it; its mounts go with it."""
        if self._process is None:
            return
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._process = None
        shutil.rmtree(self._base, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- programs in it

    def argv(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "/") -> list[str]:
        """A command of the machine that runs `command` inside, with its stdio, until that ends.

        SIGKILL of what this starts also ends `command`; `env` is added to HOME, PATH, LANG and nothing else.
        """
        words = {"HOME": self.home, "PATH": PATH, "LANG": "C.UTF-8", "HOSTNAME": self.name, **(env or {})}
        enter = ["nsenter", "-t", str(self.pid), *self._namespaces, "--root", f"--wdns={cwd}"]
        with_parent = ["setpriv", "--pdeathsig", "KILL"]  # nsenter alone leaves its child behind
        return [*enter, *with_parent, "env", "-i", *(f"{name}={value}" for name, value in words.items()), *command]

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 60.0, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        return subprocess.run(
            self.argv(command, env), text=True, capture_output=True, timeout=timeout, check=False, **more
        )

    # --- its network

    def link(self, here: str, inside: str) -> str:
        """A cable between it and the caller's network; addresses as "10.9.8.1/30". Returns the interface here.

        It goes with the box.
        """
        name = f"bx{self.pid}"[:15]
        enter = f"nsenter -t {self.pid} --net"
        for command in (
            f"ip link add {name} type veth peer name eth0 netns {self.pid}",
            f"ip addr add {here} dev {name}",
            f"ip link set {name} up",
            f"{enter} ip addr add {inside} dev eth0",
            f"{enter} ip link set eth0 up",
        ):
            subprocess.run(shlex.split(command), check=True, capture_output=True)
        return name


def _needed() -> dict[Path, str]:
    """What the project's interpreters need and the root file system does not hold."""
    root = os.stat("/").st_dev
    folders = {REPO, Path(sys.prefix), Path(sys.base_prefix)}
    private = (Path("/tmp"), Path("/run"))  # a box has its own
    return {
        folder: str(folder)
        for folder in sorted(folders)
        if folder.stat().st_dev != root or any(folder.is_relative_to(own) for own in private)
    }


def _bind(here: str, inside: str) -> str:
    return f'mkdir -p "$root"{shlex.quote(inside)}; mount --bind {shlex.quote(here)} "$root"{shlex.quote(inside)}'
