#!/usr/bin/env python3
"""Install the real MCP clients that the tests of this folder use, below .dev/clients. Standard library only.

    python3 tests/clients/setup_clients.py            make what is missing
    python3 tests/clients/setup_clients.py --check    only say what is missing (exit code 1)

Parts: py-old and py-new (the official Python SDK, an early 1.x and the newest) and node (the official TypeScript
SDKs, the Inspector, opencode, Claude Code, Continue, Gemini CLI, Qwen Code, Codex, pi and the Node.js that it needs;
about 1.8 GB). All clients are pinned, and what the Python ones depend on; a lock file for npm would name the platform
it was made on. A second call starts nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / ".dev" / "clients"
PARTS = ("py-old", "py-new", "node")
STEP_LIMIT_S = 900
_UNREACHABLE = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "ECONNRESET",
    "NewConnectionError",
    "ConnectTimeoutError",
    "ProxyError",
    "name resolution",
    "No matching distribution",  # pip's last word when no index answered, too
)


class SetupError(Exception):
    """A part could not be made; the text says why and what to do."""


def target() -> Path:
    """Where the clients are: MPB_CLIENTS_DIR, or .dev/clients."""
    return Path(os.environ.get("MPB_CLIENTS_DIR") or TARGET)


def _manifest(part: str) -> list[Path]:
    if part == "node":
        return [HERE / "node" / "package.json"]
    return [HERE / f"requirements-{part.removeprefix('py-')}.txt"]


def _key(part: str) -> str:
    """What a stamp must say to be current: the pinned versions, and for Python parts this Python."""
    digest = hashlib.sha256(part.encode())
    for path in _manifest(part):
        digest.update(path.read_bytes())
    if part != "node":
        digest.update(f"{sys.version_info[:2]} {sys.base_prefix}".encode())
    return digest.hexdigest()


def _stamp(into: Path, part: str) -> Path:
    return into / f"{part}.stamp"


def is_made(part: str, into: Path | None = None) -> bool:
    """Whether that part is there in the pinned versions."""
    into = into or target()
    stamp = _stamp(into, part)
    return (into / part).is_dir() and stamp.is_file() and stamp.read_text(encoding="utf-8") == _key(part)


def missing(into: Path | None = None) -> list[str]:
    """The parts that are not there, or in other versions."""
    return [part for part in PARTS if not is_made(part, into)]


def setup(into: Path | None = None, say: Callable[[str], None] = print) -> None:
    """Make what is missing.

    Args:
        into: folder, made if need be; .dev/clients by default. say: takes progress lines.

    Raises:
        SetupError: a tool is missing, or a registry can't be reached, or lacks a version.
    """
    into = into or target()
    todo = missing(into)
    if not todo:
        say("clients: all there")
    for number, part in enumerate(todo, 1):
        say(f"clients: [{number}/{len(todo)}] {part}: {_describe(part)} ...")
        started = time.monotonic()
        into.mkdir(parents=True, exist_ok=True)
        _stamp(into, part).unlink(missing_ok=True)  # an interrupt leaves it unmade
        shutil.rmtree(into / part, ignore_errors=True)
        (_make_node if part == "node" else _make_python)(into, part)
        _stamp(into, part).write_text(_key(part), encoding="utf-8")
        say(f"clients: [{number}/{len(todo)}] {part}: {time.monotonic() - started:.0f} s")


def _describe(part: str) -> str:
    if part == "node":
        return "TypeScript SDKs, Inspector and seven agents from the npm registry (about 1.8 GB)"
    lines = _manifest(part)[0].read_text(encoding="utf-8").split()
    return next(line for line in lines if line.startswith("mcp==")) + " from the Python package index"


def _make_python(into: Path, part: str) -> None:
    folder = into / part
    _run(part, into, sys.executable, "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2")
    _run(part, into, *pip, "--timeout", "20", "-r", str(_manifest(part)[0]))
    _run(part, into, str(folder / "bin" / "python"), "-c", "import mcp.client.stdio")


def _make_node(into: Path, part: str) -> None:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise SetupError(f"clients: {tool} is not on PATH: install Node.js 20 or newer, or do without these tests.")
    folder = into / part
    folder.mkdir()
    for path in _manifest(part):
        shutil.copy(path, folder)
    options = ("--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=2", "--fetch-timeout=60000")
    _run(part, into, "npm", "install", "--no-package-lock", "--prefix", str(folder), *options)
    for name in ("claude", "cn", "codex", "mcp-inspector", "node", "opencode", "pi"):
        if not (folder / "node_modules" / ".bin" / name).exists():
            raise SetupError(f"clients: npm left no {name} in {folder}: is this platform supported by it?")


def _run(part: str, into: Path, *argv: str) -> None:
    log = into / f"{part}.log"
    with log.open("ab") as out:
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=STEP_LIMIT_S, check=False, cwd=into
            )
        except subprocess.TimeoutExpired:
            raise SetupError(
                f"clients: {part}: not done within {STEP_LIMIT_S} s: {' '.join(argv)} (log: {log})"
            ) from None
    if done.returncode:
        text = log.read_text(encoding="utf-8", errors="replace")
        tail = "\n".join(f"    {line}" for line in text.splitlines()[-8:])
        cause = "failed"
        if any(sign in text for sign in _UNREACHABLE):
            cause = "could not get a package: is the registry reachable from here (proxy, mirror, offline)?"
        raise SetupError(f"clients: {part}: {cause}\n  {' '.join(argv)}\n{tail}\n  whole log: {log}")


def main(argv: list[str]) -> int:
    """The command line; see the module."""
    if argv not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    if argv:
        lack = missing()
        print(f"clients: missing: {', '.join(lack)}" if lack else "clients: all there")
        return 1 if lack else 0
    try:
        setup(say=lambda line: print(line, flush=True))
    except SetupError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
