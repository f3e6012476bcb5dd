"""Record the first minute as docs/first-minute.svg: install, set up, an agent's first call. Nothing in it is made up.

    .dev/venv/bin/python -m benchmarks.first_minute

It runs on a pseudo-terminal, in a home of its own, which is shown as /home/me; uv and mempalace come from a package
index. Where the SVG can move, each line appears when it appeared, but no pause is longer than PAUSE_S; elsewhere all
lines are there.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from tests.harness import REPO, World
from tests.installers import run, uv_and_pipx
from tests.proctools import PATIENCE_S
from tests.rpcproc import RpcProcess

COLUMNS = 108
PAUSE_S = 1.5
TYPING_S = 0.8
HOME = "/home/me"
COMMANDS = (
    "uv tool install --quiet '.[engine]'",
    "mempalace-broker setup --yes",
    f"{sys.executable} -m benchmarks.first_minute --as-agent",
    "mempalace-broker status",
)
SHOWN = {COMMANDS[2]: "# Cursor starts what its configuration says now"}
_FONT = re.compile(r"@font-face \{.*?\}\n", re.DOTALL)  # from a server: a picture in a README loads none
_LINE = re.compile(r'(<text )(class="[^"]+" x="[^"]+" y="[^"]+"[^>]*clip-path="url\(#[^"]*-line-(\d+)\)")')
_STYLE = (
    "@keyframes appear { from, 99% { opacity: 0 } }\n"
    "@media (prefers-reduced-motion) { text { animation: none !important } }\n"
)


class Line(NamedTuple):
    """A line of the terminal, and the seconds from the start until it appeared."""

    text: str
    at: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-agent", action="store_true", help="be an agent that makes its first calls")
    if parser.parse_args().as_agent:
        first_calls()
        return
    with World(None) as world, tempfile.TemporaryDirectory() as folder:
        (world.home / ".cursor").mkdir()
        tools = uv_and_pipx(Path(folder))
        env = {**os.environ, **world.env, "TERM": "xterm-256color", "COLORTERM": "", "MEMPALACE_BROKER_PARK_S": "1"}
        env["PATH"] = f"{world.home}/.local/bin:{tools}:{Path(sys.executable).parent}:/usr/bin:/bin"
        run("uv", "tool", "install", "--quiet", ".[engine]", env=env, cwd=REPO)  # fills uv's cache
        run("uv", "tool", "uninstall", "--quiet", "mempalace-broker", env=env)
        lines = record(env, str(world.home))
        run("mempalace-broker", "stop", env=env)
    (REPO / "docs" / "first-minute.svg").write_text(as_svg(lines), encoding="utf-8")


def record(env: Mapping[str, str], home: str) -> list[Line]:
    """Run the commands, one after the other."""
    lines, now, took = [], 0.0, 0.0
    for command in COMMANDS:
        now += TYPING_S
        lines.append(Line(f"\x1b[1;32m$\x1b[0m \x1b[1m{SHOWN.get(command, command)}\x1b[0m", now))
        started = last = time.monotonic()
        for text in output(command, env):
            said = time.monotonic()
            now, last = now + min(said - last, PAUSE_S), said
            lines.append(Line(text.replace(home, HOME), now))
        took += time.monotonic() - started
        lines.append(Line(f"\x1b[2m{time.monotonic() - started:.1f} s\x1b[0m", now))
    print(f"{took:.1f} s in all")
    return lines


def output(command: str, env: Mapping[str, str]) -> Iterator[str]:
    """Run a command on a terminal; yield its lines as they come."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(REPO)
        os.execve("/bin/sh", ["sh", "-c", command], dict(env))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    said: list[str] = []
    rest = b""
    with open(terminal, "rb", buffering=0) as reading:
        while data := read(reading):
            *whole, rest = (rest + data).split(b"\n")
            said += (new := [line.decode("utf-8", "replace").rstrip("\r") for line in whole])
            yield from new
    _, status = os.waitpid(pid, 0)
    assert status == 0, "\n".join([command, *said])


def read(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(1 << 16) or b""
    except OSError:  # Linux reports in this way that the other side is closed
        return b""


def as_svg(lines: list[Line]) -> str:
    """The whole screen, each line with its time."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    times: list[float] = []
    for line in lines:
        rows = Text.from_ansi(line.text).wrap(console, COLUMNS)
        times += [line.at] * len(rows)
        for row in rows:
            console.print(row, highlight=False)
    svg = _FONT.sub("", console.export_svg(title="the first minute", unique_id="minute"))
    timed = _LINE.sub(lambda m: f'{m[1]}style="animation: appear {times[int(m[3])]:.1f}s" {m[2]}', svg)
    return timed.replace("<style>", f"<style>{_STYLE}", 1).replace("Fira Code, monospace", "monospace")


# --- an agent


def first_calls() -> None:
    """Start the server as the configuration says, store and find something."""
    entry = json.loads(Path.home().joinpath(".cursor/mcp.json").read_text())["mcpServers"]["mempalace"]
    print(f"{entry['command']} {' '.join(entry['args'])}")
    with tempfile.TemporaryDirectory() as folder:
        shim = RpcProcess([entry["command"], *entry["args"]], env=os.environ, cwd=folder, log=Path(folder, "stderr"))
        shim.initialize()
        print(f"tools: {len(shim.tools())}")
        text = "We deploy on Tuesdays, because the backup runs on Mondays."
        shim.call_tool("add_drawer", wing="project", room="decisions", content=text, timeout=PATIENCE_S)
        print(f"add_drawer  {text}")
        found = shim.call_tool("search", query="on which day is the release?", limit=1)["results"][0]
        print(f"search      {found['text']}")
        shim.finish()


if __name__ == "__main__":
    main()
