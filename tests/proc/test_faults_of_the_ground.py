"""The ground under the broker fails: a full disk, a read-only state root, and endings at the worst moment."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mempalace_broker import errors
from tests.harness import RpcError, World, eventually, repeated
from tests.proctools import is_running

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]


def _mount(*args: str) -> None:
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@contextmanager
def small_disk(world: World, size: str) -> Iterator[None]:
    """The state root on a file system of its own."""
    config = (world.state_root / "config.json").read_bytes()
    _mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(world.state_root))
    try:
        (world.state_root / "config.json").write_bytes(config)
        yield
        for process in world.processes:
            process.release()
        if world.brokers():
            world.broker().admin("broker/stop", {"mode": "now"})
        eventually(lambda: not world.pids(), what="the end of broker and engine")
    finally:
        eventually(
            lambda: subprocess.run(["umount", str(world.state_root)], capture_output=True, check=False).returncode == 0,
            what="the disk to be free",
        )


def fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(ballast.parent).free < 4096


def test_a_full_disk_loses_nothing_and_recovers_by_itself(world: World) -> None:
    with small_disk(world, "24m"):
        shim = world.shim()
        shim.initialize()
        kept = shim.call_tool("add_drawer", wing="w", room="r", content="stored before the disk was full")
        ballast = world.state_root / "ballast"
        fill(ballast)
        refused = 0
        for number in range(5):
            try:
                told = shim.call_tool(
                    "add_drawer", 60, wing="w", room="r", content=f"no room for number {number} " * 400
                )
                refused += told.get("success") is not True
            except RpcError:
                refused += 1
        assert refused == 5
        assert world.broker().status()["broker"]["state"] == "serving"
        ballast.unlink()
        again = shim.call_tool("add_drawer", 60, wing="w", room="r", content="stored after the disk had room again")
        assert again["success"] is True
        for drawer in (kept, again):
            assert "stored" in str(shim.call_tool("get_drawer", drawer_id=drawer["drawer_id"]))
        found = shim.call_tool("search", query="disk had room again", limit=2)["results"]
        assert "after the disk" in str(found)


def test_the_first_write_after_a_full_disk_waits_for_nothing(world: World) -> None:
    """Chroma leaves a transaction open when the disk fills up in the middle of a write, and its next write hangs."""
    text = "words of some sort " * 60
    with small_disk(world, "8m"):
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", wing="w", room="r", content="stored before the disk was full")
        ballast = world.state_root / "ballast"
        ballast.write_bytes(b"x" * (shutil.disk_usage(world.state_root).free - 60_000))
        told = [shim.call_tool("add_drawer", wing="w", room="r", content=f"{number} {text}") for number in range(8)]
        assert [answer["success"] for answer in told[-3:]] == [False] * 3
        ballast.unlink()
        assert shim.call_tool("add_drawer", wing="w", room="r", content=f"room again {text}")["success"]
        assert world.broker().status()["engine"]["restarts"] == 0


def test_a_journal_that_can_t_be_written_is_named_in_status_until_it_can(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    journal = world.state_root / "broker.journal"
    shim.call_tool("add_drawer", wing="w", room="r", content="stored before")
    journal.unlink()
    journal.mkdir()
    for _ in range(2):
        with pytest.raises(RpcError, match="was not executed: the journal of writes"):
            shim.call_tool("add_drawer", wing="w", room="r", content="not stored")
        with pytest.raises(RpcError, match="was not executed: the journal of writes"):
            shim.call_tool("kg_add", subject="a", predicate="b", object="c")
        (entry,) = world.broker().status()["degraded"]
        assert str(journal) in entry["what"]
    assert shim.call_tool("search", query="stored", limit=1)["results"]
    journal.rmdir()
    assert shim.call_tool("kg_add", subject="a", predicate="b", object="c")["success"]
    assert world.broker().status()["degraded"] == []


def test_a_read_only_state_root_is_said_and_the_shim_lives_on(world: World) -> None:
    with small_disk(world, "24m"):
        _mount("-o", "remount,ro", str(world.state_root))
        shim = world.shim()
        assert shim.initialize(10)["serverInfo"]["name"] == "mempalace"
        with pytest.raises(RpcError) as error:
            shim.call_tool("status", 70)
        assert error.value.code == errors.NOT_EXECUTED
        assert str(world.state_root) in str(error.value)
        assert "Read-only" in str(error.value)
        _mount("-o", "remount,rw", str(world.state_root))

        def stored() -> bool:
            try:
                told = shim.call_tool("add_drawer", 60, wing="w", room="r", content="now it works")
            except RpcError as error:  # the last attempt's failure counts for some seconds
                if error.code == errors.NOT_EXECUTED:
                    return False
                raise
            return bool(told["success"])

        eventually(stored, what="the mended ground to be noticed")


READ_ONLY = 'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_an_agent_that_may_write_nothing_uses_the_broker_that_runs(world: World) -> None:
    """As in a sandbox that shows its agents the home read-only; where no broker runs, it is said what is missing."""
    first = world.shim()
    first.initialize()
    shim = world.program("mp-shim")
    sandboxed = world.spawn(["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(world.home), shim])
    sandboxed.initialize()
    assert sandboxed.call_tool("kg_add", subject="a", predicate="b", object="c")["success"]
    assert world.cli("stop").returncode == errors.EXIT_OK
    first.finish()
    with pytest.raises(RpcError, match="Read-only file system") as refused:
        sandboxed.call_tool("kg_stats")
    assert refused.value.code == errors.NOT_EXECUTED
    assert world.cli("ensure").returncode == errors.EXIT_OK

    def served() -> bool:
        try:
            return bool(sandboxed.call_tool("kg_stats")["triples"] == 1)
        except RpcError as error:  # the last attempt's failure counts for some seconds
            if error.code == errors.NOT_EXECUTED:
                return False
            raise

    eventually(served, what="the broker that runs to be noticed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_restart_that_could_not_start_the_next_broker_stops_none_and_snapshots_are_listed(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="something to keep")
    broker = world.broker()
    program = world.program("mempalace-broker")

    def sandboxed(*words: str) -> subprocess.CompletedProcess[str]:
        argv = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(world.root), program, *words]
        return subprocess.run(argv, env=world.env, capture_output=True, text=True, timeout=60, check=False)

    refused = sandboxed("restart")
    assert refused.returncode == errors.EXIT_STATE_ROOT, refused.stderr
    assert "is not writable here" in refused.stderr
    assert "Hint: " in refused.stderr
    assert world.broker().pid == broker.pid
    none = sandboxed("backup", "list")
    assert (none.returncode, none.stderr) == (errors.EXIT_OK, "")
    assert "no snapshots" in none.stdout
    made = world.cli("backup", "create", "--untried")
    assert made.returncode == errors.EXIT_OK, made.stderr
    assert "of 20" in sandboxed("backup", "list").stdout
    settings = world.private / "config.toml"
    settings.write_text("[broker]\nidle_s = 'soon'\n")
    wrong = world.cli("restart")
    assert wrong.returncode == errors.EXIT_CONFIG, wrong.stderr
    assert world.broker().pid == broker.pid
    settings.unlink()


@repeated("rounds", 12, slow=200)
def test_stop_and_start_in_a_tight_loop(world: World, rounds: int) -> None:
    shim = world.shim()
    shim.initialize()
    seen = set()
    with world.watch_owners(0.01) as watch:
        for _ in range(rounds):
            done = world.cli("ensure")
            assert done.returncode == 0, done.stderr
            broker = world.broker()
            seen.add(broker.pid)
            broker.admin("broker/stop", {"mode": "now", "reason": "loop"})
            eventually(lambda pid=broker.pid: not is_running(pid), what="the end of the broker")  # type: ignore[misc]
    assert watch.most <= 1
    assert len(seen) == rounds
    assert shim.call_tool("add_drawer", 60, wing="w", room="r", content="after the loop")["success"] is True


@repeated("rounds", 8, slow=40)
def test_idle_exit_racing_the_first_byte(world: World, rounds: int) -> None:
    """Sessions come just when the broker leaves because nobody is there: each is served."""
    world.env["MEMPALACE_BROKER_IDLE_S"] = "1"
    seed = int(os.environ.get("MPB_SEED", time.time_ns() % 10**6))
    rng = random.Random(seed)
    print(f"MPB_SEED={seed}")
    brokers = set()
    for _ in range(rounds):
        shim = world.shim()
        assert shim.initialize(20)["serverInfo"]["name"] == "mempalace"
        assert shim.request("tools/list", timeout=60)["result"]["tools"]
        # both may have come from the broker that left; only a call needs one that stays
        assert "entities" in shim.call_tool("kg_stats", 60)
        brokers.add(world.broker().pid)
        left = time.monotonic()
        assert shim.finish() == 0
        due = left + 1.0 + rng.uniform(-0.03, 0.05)
        eventually(lambda due=due: time.monotonic() >= due, what="the moment of the race")  # type: ignore[misc]
    assert len(brokers) > 1, "no broker left: nothing was raced"
