"""Agents of another place - a container or a virtual machine - on the palace of a world.

    with Box("one", {world.state_root: "/home/dev/.mempalace"}) as box:
        inside = Side(world, box)
        shim = inside.shim()

A Side starts what a World starts, by the same names, with the environment of its own place. What it starts belongs to
the world: it ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.harness import MODEL, PRIVATE, REPO, World, engine_python, model_home
from tests.netbox import PATH
from tests.rpcproc import RpcProcess

BIN = "/usr/local/bin"
_OWN = {"HOME", "TMPDIR", PRIVATE}  # of the place, not of the world

_INSTALL = r"""
set -eu
mkdir -p "$0/{model_parent}" /srv
ln -sfn {model} "$0/{model_parent}/"
printf '#!%s\nimport sys\nfrom mempalace_broker.shim.main import entry\nsys.exit(entry())\n' {python} > {bin}/mp-shim
printf '#!%s\nimport sys\nfrom mempalace_broker.cli import main\nsys.exit(main())\n' {python} > {bin}/mempalace-broker
chmod 755 {bin}/mp-shim {bin}/mempalace-broker
"""


class Place(Protocol):
    """Where programs can be run: `tests.netbox.Box`, `tests.vm.machine.Machine`."""

    name: str
    home: str

    def argv(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "/") -> list[str]:
        """A command of this machine that runs `command` there."""

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 60.0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""


class Side:
    """One place's view of a world. `env`: more environment for everything there."""

    def __init__(self, world: World, place: Place, env: Mapping[str, str] | None = None) -> None:
        self.world = world
        self.place = place
        self.env = {name: value for name, value in world.env.items() if name not in _OWN} | dict(env or {})
        # a folder that is not there, in a variable that brokers hand on: by it the world knows its processes
        self.env["PATH"] = f"{PATH}:{world.root}/bin"
        model = model_home() / MODEL
        script = _INSTALL.format(
            bin=BIN, python=sys.executable, repo=REPO, model=model, model_parent=os.path.dirname(MODEL)
        )
        self.must(["sh", "-c", script, place.home])

    def shim(self, *args: str, env: Mapping[str, str] | None = None) -> RpcProcess:
        """An mp-shim there."""
        return self.spawn([f"{BIN}/mp-shim", *args], env=env)

    def bare(self, *args: str, env: Mapping[str, str] | None = None) -> RpcProcess:
        """A mempalace-mcp there, without any broker."""
        assert self.world.engine is not None
        return self.spawn([str(engine_python(self.world.engine).parent / "mempalace-mcp"), *args], env=env)

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> RpcProcess:
        """Any MCP server over stdio, there."""
        return self.world.spawn(self.place.argv(argv, {**self.env, **(env or {})}, "/srv"))

    def cli(
        self, *args: str, timeout: float = 60.0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `mempalace-broker ...` there, to its end."""
        return self.place.run([f"{BIN}/mempalace-broker", *args], env={**self.env, **(env or {})}, timeout=timeout)

    def must(self, command: Sequence[str], timeout: float = 60.0) -> str:
        """What a command there prints; it has to succeed."""
        done = self.place.run(command, env=self.env, timeout=timeout)
        assert done.returncode == 0, f"{command[:3]} in {self.place.name}: {done.returncode} {done.stderr[-2000:]}"
        return done.stdout

    def python(self, code: str, *args: str | Path, timeout: float = 60.0) -> str:
        """What a few lines of Python print there."""
        return self.must([sys.executable, "-c", code, *map(str, args)], timeout)

    def log(self) -> str:
        """broker.log, as it is seen from here."""
        return self.world.log()
