"""Completion as people have it: the TAB key in bash, zsh and fish, with the script that `completion` prints."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import World

PATIENCE_S = 30.0
# How each starts without anybody's settings, and loads the script.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(mempalace-broker completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'PS1="$ "; autoload -Uz compinit && compinit -u -D && eval "$(mempalace-broker completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "mempalace-broker completion fish | source"),
}


@pytest.fixture
def world() -> Iterator[World]:
    with World(None) as made:
        yield made


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.screen = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until the pattern is on the screen."""
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.screen):
            left = end - time.monotonic()
            ready = select.select([self._fd], [], [], max(0.0, left))[0]
            assert ready, f"{pattern} is not in {self.screen!r}"
            self.screen += os.read(self._fd, 1 << 16).decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._fd)  # hangs up
        os.waitpid(self._pid, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key(shell: str, world: World) -> None:
    argv, load = SHELLS[shell]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {shell} here")
    terminal = Terminal(argv, {**world.env, "SHELL": shell, "TERM": "dumb"}, world.cwd)
    try:
        terminal.type(f"{load}; echo loa''ded\n")
        terminal.wait_for(r"\nloaded|\rloaded")
        for typed, completed in (("mempalace-broker statu\t", "status"), ("--wat\t", "--watch")):
            terminal.screen = ""
            terminal.type(typed)
            terminal.wait_for(re.escape(completed))
        terminal.type("\x15echo gone\n")
        terminal.wait_for("gone")
    finally:
        terminal.close()


def test_fish_tells_what_it_would_offer(world: World) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    argv, load = SHELLS["fish"]
    script = f"{load}; complete -C 'mempalace-broker st'; complete -C 'mempalace-broker status --w'"
    done = subprocess.run(
        [*argv[:2], "-c", script], env=world.env, cwd=world.cwd, capture_output=True, text=True, check=True
    )
    offered = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert {"status", "stop", "--watch"} <= offered
    assert "Who owns the palace" in done.stdout
