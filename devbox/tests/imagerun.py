"""Runs containers of the built images as docker would, on the palace of a test's world."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from devbox.tests.imagebuild import TAG, Images
from tests.harness import World
from tests.rpcproc import RpcProcess

BASE, PI, STUDIO = f"{TAG}:base", f"{TAG}:pi", f"{TAG}:studio"
OWNER = "4242"  # of the workspace and the palace
PALACE = "/home/developer/.mempalace"
COLD_S = 120.0


class Devbox:
    """One container of an image on a world's palace, which another path may show (`palace`)."""

    def __init__(self, images: Images, world: World, tag: str = BASE, palace: Path | None = None) -> None:
        self.images = images
        self.world = world
        self.tag = tag
        self.name = f"devbox-{uuid.uuid4().hex[:12]}"
        self.options = ["--name", self.name, "--interactive"]
        self.options += ["--volume", f"{palace or world.state_root}:{PALACE}", "--volume", f"{world.cwd}:/workspace"]

    def argv(self, *command: str, options: tuple[str, ...] = ("--network", "none")) -> list[str]:
        return self.images.run_argv(self.tag, *command, options=[*self.options, *options])

    # by number: the passwd of a container is in the mount namespace of the podman that runs it, and this is another
    exec_as = ("--user", f"{OWNER}:{OWNER}", "--env", "HOME=/home/developer", "--workdir", "/workspace")

    def shim(self, *options: str) -> RpcProcess:
        """mp-shim as the container's command; its agent is this test."""
        process = self.world.spawn(self.argv("mp-shim", options=options or ("--network", "none")), env=self.images.env)
        process.initialize(COLD_S)
        return process

    def second_shim(self) -> RpcProcess:
        """One more, by `exec` into the running container."""
        argv = self.images.argv("podman", "exec", "--interactive", *self.exec_as, self.name, "mp-shim")
        process = self.world.spawn(argv, env=self.images.env)
        process.initialize(COLD_S)
        return process

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the running container, as developer."""
        argv = self.images.argv("podman", "exec", *self.exec_as, self.name, *command)
        return subprocess.run(argv, env=self.images.env, text=True, capture_output=True, timeout=60, check=False)

    def run(self, *command: str, options: tuple[str, ...] = ("--network", "none")) -> str:
        """Run a command in it; it has to succeed."""
        argv = self.argv(*command, options=options)
        done = subprocess.run(argv, env=self.images.env, text=True, capture_output=True, timeout=COLD_S, check=False)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout[-3000:]} {done.stderr[-3000:]}"
        return done.stdout + done.stderr
