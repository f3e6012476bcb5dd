"""What the copying of a move writes, and what its verification notices; in an engine's interpreter, which has numpy."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mempalace_broker.broker.engine_launch import BOOTSTRAP, package_root
from mempalace_broker.cli.outcome import EXIT_INTERRUPTED
from tests.harness import World, engine_python, eventually, require_engine

pytestmark = pytest.mark.engine

SCRIPT = """
import random
from types import SimpleNamespace as Space

from mempalace_broker.engine import moving
from mempalace_broker.engine.moving import MoveFailed, synchronise, verify

moving.PAGE = 50


class Store:
    "A collection in memory, in the order of its ids."

    def __init__(self, rows=()):
        self.rows = {id_: (f"text {id_}", {"wing": "w", "n": n, "x": None}, vector(n)) for n, id_ in enumerate(rows)}
        self.upserts = 0

    def get(self, ids=None, limit=None, offset=0, include=()):
        found = ids or sorted(self.rows)[offset : offset + limit]
        columns = [list(column) for column in zip(*(self.rows[id_] for id_ in found))] or [[], [], []]
        return Space(ids=found, documents=columns[0], metadatas=columns[1], embeddings=columns[2])

    def upsert(self, *, ids, documents, metadatas, embeddings):
        self.upserts += len(ids)
        self.rows.update(zip(ids, zip(documents, metadatas, embeddings)))

    def delete(self, *, ids):
        for id_ in ids:
            del self.rows[id_]

    def count(self):
        return len(self.rows)

    def query(self, *, query_embeddings, n_results, include):
        def far(id_):
            return sum((a - b) ** 2 for a, b in zip(self.rows[id_][2], query_embeddings[0]))

        best = sorted(self.rows, key=far)[:n_results]
        return Space(ids=[best], distances=[[far(id_) for id_ in best]])


def vector(n):
    rng = random.Random(n)
    return [rng.gauss(0, 1) for _ in range(16)]


def refused(spoil):
    target = Store()
    wanted = synchronise("drawers", source, target)[0]
    spoil(target.rows)
    try:
        verify("drawers", source, target, wanted)
    except MoveFailed as exc:
        return str(exc)
    raise AssertionError(f"{spoil} was not noticed")


names = [f"d{n:04}" for n in range(203)]
source, target = Store(names), Store(names[:120])
target.rows["gone"] = target.rows["d0001"]
target.rows["d0002"] = ("another text", *target.rows["d0002"][1:])
wanted, written, removed = synchronise("drawers", source, target)
assert (len(wanted), written, removed, target.upserts) == (203, 84, 1, 84), (len(wanted), written, removed)
verify("drawers", source, target, wanted)
assert synchronise("drawers", source, target)[1:] == (0, 0)

assert "in the new one" in refused(lambda rows: rows.pop("d0100"))
assert "in one store only" in refused(lambda rows: rows.update(other=rows.pop("d0100")))
assert "1 rows differ" in refused(lambda rows: rows.update(d0100=("short", *rows["d0100"][1:])))
assert "1 rows differ" in refused(lambda rows: rows.update(d0100=(rows["d0100"][0], {"wing": "v"}, rows["d0100"][2])))
assert "1 rows differ" in refused(lambda rows: rows.update(d0100=(*rows["d0100"][:2], vector(101))))

odd = Store(["a"])
odd.rows["a"] = ("nul \\0 and \\ud83d", {"f": 2.0, "s": "\\0x"}, [2.0] * 8)
kept = Store(["a"])
kept.rows["a"] = ("nul  and ?", {"f": 2, "s": "x"}, [1.0] * 8)  # what PostgreSQL and Chroma make of it
assert synchronise("drawers", odd, kept)[1:] == (0, 0)
"""


def test_a_copy_is_complete_or_refused() -> None:
    require_engine("newest")
    program = BOOTSTRAP.partition("from mempalace_broker.engine.worker")[0] + SCRIPT
    done = subprocess.run(
        [engine_python("newest"), "-c", program, package_root()],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_a_move_without_a_traceback_and_changes_nothing() -> None:
    require_engine("newest")
    with World("newest") as world:
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits in the water")
        moving = subprocess.Popen(
            [world.program("mempalace-broker"), "move-to", "sqlite_exact"],
            env=world.env,
            cwd=world.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # as in a terminal: Ctrl-C goes to the whole process group
        )
        started = Path(f"/proc/{moving.pid}/task/{moving.pid}/children")
        eventually(lambda: "engine.moving" in commands(started.read_text().split()), 60, "the engine's interpreter")
        os.killpg(moving.pid, signal.SIGINT)
        said = moving.communicate(timeout=60)[0]
        assert moving.returncode == EXIT_INTERRUPTED, said
        assert "Traceback" not in said
        assert "mempalace-broker: interrupted." in said
        assert shim.call_tool("status")["total_drawers"] == 1
        assert (world.palace / "chroma.sqlite3").exists()


def commands(pids: list[str]) -> str:
    """The command lines of these processes."""
    lines = []
    for pid in pids:
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
    return "\n".join(lines)
