"""Completion as people have it: the TAB key in bash, zsh and fish, with the script that `completion` prints."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.harness import World
from tests.terminal import Terminal

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


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key(shell: str, world: World) -> None:
    argv, load = SHELLS[shell]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {shell} here")
    terminal = Terminal(*argv, env={**world.env, "SHELL": shell, "TERM": "dumb"}, cwd=world.cwd)
    try:
        terminal.press(f"{load}; echo loa''ded\n".encode())
        terminal.sees("loaded")
        for typed, completed in ((b"mempalace-broker statu\t", "status"), (b"--wat\t", "--watch")):
            terminal.press(typed)
            terminal.sees(completed)
        terminal.press(b"\x15echo gone\n")
        terminal.sees("gone")
    finally:
        terminal.hang_up()


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
