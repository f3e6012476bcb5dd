"""`mempalace-broker selftest` as a person runs it. The demo, its last check, has tests of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from mempalace_broker.system import kernel
from tests.harness import World, eventually
from tests.rehearsal import as_on_macos, compiled, program

CLI = [sys.executable, "-m", "mempalace_broker", "selftest"]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def bare() -> Iterator[World]:
    """A world without an engine: all checks but the demo do without."""
    with World(None, env={"MEMPALACE_BROKER_ENGINE": "/nowhere/python"}) as world:
        yield world


def start(world: World, *args: str) -> subprocess.Popen[str]:
    out = subprocess.PIPE
    return subprocess.Popen(
        [*CLI, *args], env=world.env, cwd=world.cwd, stdout=out, stderr=out, text=True, start_new_session=True
    )


def report(process: subprocess.Popen[str], code: int = EXIT_OK) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The document, and its checks by name."""
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, (out, err)
    told = json.loads(out)
    return told, {row["name"]: row for row in told["checks"]}


def test_a_report_has_machine_and_verdicts_and_leaves_nothing(bare: World, tmp_path: Path) -> None:
    bare.env["TMPDIR"] = str(tmp_path)
    process = start(bare, "--json")
    told, checks = report(process)
    documented = re.findall(
        r"^\| `(.*?)` \|", (DOCS / "cli.md").read_text().split("## selftest")[1].split("\n## ")[0], re.M
    )
    assert [name for name in documented if name in checks] == list(checks), (
        "the documentation has every check, in order"
    )
    assert set(told) == {"schema", "ok", "version", "seconds", "machine", "checks"}
    assert all(set(row) == {"name", "verdict", "figure", "why"} for row in told["checks"])
    assert told["schema"] == 1
    assert {name for name, row in checks.items() if row["verdict"] == "skipped"} == {"documents", "demo"}
    assert {row["verdict"] for row in told["checks"]} == {"ok", "skipped"}
    assert "300 of 300" in checks["sessions"]["figure"]
    assert list(tmp_path.iterdir()) == []
    assert not bare.pids()
    assert bare.record() is None, "the user's own palace was touched"


def test_interrupted_it_leaves_nothing(bare: World, tmp_path: Path) -> None:
    bare.env["TMPDIR"] = str(tmp_path)
    process = start(bare)
    eventually(lambda: list(tmp_path.rglob("broker.json")), what="its broker")
    for _ in range(2):  # people press it twice
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: not bare.pids(), what="the end of all processes")


def test_two_halves_meet_over_a_share(bare: World, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    mounted = shutil.which("bindfs") and os.geteuid() == 0
    if mounted:
        subprocess.run(["bindfs", "--no-allow-other", "-o", "entry_timeout=3600", str(here), str(there)], check=True)
    try:
        halves = [start(bare, "--json", "--share", str(side)) for side in ((here, there) if mounted else (here, here))]
        for half in halves:
            told, checks = report(half)
            assert {row["verdict"] for row in checks.values()} == {"ok"}, checks
        if mounted:
            assert told["machine"]["share"].startswith("fuse")
            assert checks["share: socket"]["figure"] == "bind ok, connect ECONNREFUSED"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(there)], check=True)
    assert list(here.iterdir()) == []


_CHECKS = """
import json
from mempalace_broker.cli.selftest.check import run_check
from mempalace_broker.cli.selftest.system_calls import CHECKS
from mempalace_broker.system.clock import Clock, Deadline
from pathlib import Path
from types import SimpleNamespace
bench = SimpleNamespace(root=Path(sys.argv[1]))
found = {check.name: run_check(check, bench, Deadline.after(Clock(), 30)) for check in CHECKS[:3]}
print(json.dumps({name: outcome.verdict for name, outcome in found.items()}))
"""


@pytest.mark.parametrize("mended", [True, False], ids=["macOS", "a Linux that answers so"])
def test_what_macos_answers_is_as_documented_there_and_not_here(tmp_path: Path, mended: bool) -> None:
    """The checks see the differences themselves, and on a Mac that the broker has a way around them."""
    env = {**os.environ, **as_on_macos(compiled(tmp_path), "send poll connect")}
    argv = program(_CHECKS, str(tmp_path), mended=mended)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    here = {"send without waiting": "failed", "hang-ups": "failed", "full backlog": "differs"}
    assert json.loads(done.stdout) == (dict.fromkeys(here, "ok") if mended else here)


@pytest.mark.skipif(not kernel.LINUX, reason="prlimit is Linux's")
def test_a_check_that_fails_fails_the_command(bare: World) -> None:
    process = subprocess.run(
        ["prlimit", "--nofile=45:45", *CLI, "--json", "--skip", "demo", "--skip", "spelling", "--skip", "short PATH"],
        env=bare.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert process.returncode == EXIT_FAILURE, process.stderr
    told = json.loads(process.stdout)
    assert not told["ok"]
    assert "failed" in process.stderr


def test_a_check_that_is_not_there_is_named(bare: World) -> None:
    done = bare.cli("selftest", "--skip", "demos")
    assert done.returncode == EXIT_USAGE
    assert "killed broker, documents, demo" in done.stderr
