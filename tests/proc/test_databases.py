"""A palace whose drawers are not in Chroma: in a real PostgreSQL, or in mempalace's own SQLite."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker import errors
from tests.harness import RpcError, RpcProcess, World, engine_python, eventually, repeated, require_engine
from tests.load import Load
from tests.postgres import DSN, Postgres, require_postgres
from tests.proc.test_engine_differential import NOTES, Args, around, changes, comparable, make_project, mistakes, reads

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600), pytest.mark.xdist_group("databases")]

SHORT = {"MEMPALACE_MCP_TIMEOUT_MS": "3000"}
SHORT_NOTES = NOTES[:5]  # the sixth is stored in several rows
Step = tuple[str, Args]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    require_postgres()
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def postgres(server: Postgres) -> Iterator[Postgres]:
    """An empty one that runs, and whose password is what it was."""
    yield server
    server.revive()
    server.drop_tables()


def world_of(postgres: Postgres, **env: str) -> World:
    world = World("databases", env=env)
    world.settings.write_text(f'[broker]\nenv = {{ {DSN} = "{postgres.dsn()}" }}\n')
    return world


def code_of(call: Callable[[], Any]) -> int:
    with pytest.raises(RpcError) as caught:
        call()
    return caught.value.code


def fill(shim: RpcProcess, count: int) -> list[str]:
    """Store drawers; their ids."""
    found = []
    for n in range(count):
        text = f"{SHORT_NOTES[n % len(SHORT_NOTES)]} number {n}"
        told = shim.call_tool("add_drawer", wing=f"w{n % 3}", room="r", content=text)
        assert told["success"], told
        found.append(told["drawer_id"])
    return found


def says(shim: RpcProcess, tool: str, arguments: Args) -> str:
    return comparable(shim.request("tools/call", {"name": f"mempalace_{tool}", "arguments": arguments}))


# -- answers -----------------------------------------------------------------------------------------------


def few_steps(project: Path, _drawer: str) -> Iterator[Step]:
    yield from list(reads(project))[::5]
    yield "add_drawer", {"wing": "wing0", "room": "room0", "content": "written twice"}
    yield "add_drawer", {"wing": "wing0", "room": "room0", "content": "written twice"}
    yield "search", {"query": "written", "limit": 2}


def all_steps(project: Path, drawer: str) -> Iterator[Step]:
    yield from reads(project)
    yield from changes(project, drawer, "missing")
    yield from reads(project)
    for _ in range(2):
        yield "delete_drawer", {"drawer_id": drawer}
    yield "list_drawers", {}


def play(server: RpcProcess, project: Path, steps: Callable[[Path, str], Iterator[Step]]) -> list[tuple[Step, str]]:
    """Stock a palace, then go through the steps; what was answered."""
    server.initialize()
    first = fill(server, 3 if steps is few_steps else 6)[0]
    log = [(step, says(server, *step)) for step in steps(project, first)]
    if steps is all_steps:
        tools = sorted(server.tools(), key=lambda tool: str(tool["name"]))
        log += [(step, says(server, *step)) for step in mistakes(tools, random.Random(3), 60)]
    server.finish()
    return log


BACKENDS = ("pgvector", "sqlite_exact", "rust_exact", "milvus")
ALL = [pytest.param(backend, all_steps, marks=pytest.mark.slow) for backend in BACKENDS]


def require_backend(name: str) -> None:
    """Skip the test where its packages are not installed: those of Milvus Lite are only by `dev.py slow`."""
    if name == "milvus":
        code = "import milvus_lite, pymilvus"
        done = subprocess.run([engine_python("databases"), "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no Milvus Lite: {done.stderr.splitlines()[-1]}")


@pytest.mark.parametrize(("backend", "steps"), [("pgvector", few_steps), *ALL])
def test_the_answers_are_those_of_mempalace_alone(
    postgres: Postgres, backend: str, steps: Callable[[Path, str], Iterator[Step]]
) -> None:
    require_backend(backend)
    with world_of(postgres) as world:
        project = make_project(world.root)
        shutil.copytree(world.state_root, world.root / "start")
        bare = play(world.bare("--backend", backend, env={DSN: postgres.dsn()}), project, steps)
        postgres.drop_tables()
        shutil.rmtree(world.state_root)
        shutil.copytree(world.root / "start", world.state_root)
        ours = play(world.shim("--backend", backend), project, steps)
    assert [step for step, _ in bare] == [step for step, _ in ours]
    differ = [(step, around(b, a), around(a, b)) for (step, a), (_, b) in zip(bare, ours, strict=True) if a != b]
    assert not differ, f"{len(differ)} of {len(bare)}: {differ[:3]}"


# -- faults ------------------------------------------------------------------------------------------------


def test_a_database_that_stops_restarts_hangs_or_refuses(postgres: Postgres) -> None:
    with world_of(postgres, **SHORT) as world:
        shim = world.shim("--backend", "pgvector")
        shim.initialize()
        world.broker().engine_pid()
        fill(shim, 2)

        postgres.stop("fast")
        assert "Connection refused" in str(shim.call_tool("search", query="heron"))
        assert shim.call_tool("add_drawer", wing="w", room="r", content="not now")["success"] is False
        assert shim.call_tool("kg_add", subject="a", predicate="is", object="b")["success"] is True
        eventually(lambda: "pgvector does not answer" in degraded(world), what="the database in status")
        findings = world.cli("doctor")
        assert "X  storage: pgvector at 127.0.0.1" in findings.stdout
        postgres.start()
        assert shim.call_tool("status")["total_drawers"] == 2
        eventually(lambda: not degraded(world), what="a broker that is well again")

        postgres.kill()
        postgres.start()
        assert shim.call_tool("add_drawer", wing="w", room="r", content="after a crash")["success"] is True

        postgres.pause()
        assert code_of(lambda: fill(shim, 3)) == errors.OUTCOME_UNKNOWN
        assert "no answer" in world.cli("doctor").stdout
        assert shim.call_tool("kg_query", entity="a")["active_facts"]
        postgres.resume()
        world.broker().engine_pid()
        fill(shim, 3)
        assert shim.call_tool("status")["total_drawers"] == 4  # those three, and the one after the crash

        postgres.set_password("another")
        kill_engine(world)
        assert "password authentication failed" in str(shim.call_tool("search", query="heron"))
        eventually(lambda: "password authentication failed" in degraded(world), what="the password in status")
        assert postgres.password not in everything_shown(world)


def degraded(world: World) -> str:
    return " ".join(entry["what"] for entry in world.broker().status()["degraded"])


def kill_engine(world: World) -> None:
    pid = world.broker().engine_pid()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    eventually(lambda: world.broker().engine_pid() != pid, 30, "another engine")


def everything_shown(world: World) -> str:
    """What status, doctor and a bug report say, the log, the files that others may read, and all command lines."""
    report = world.root / "report.tar.gz"
    world.cli("bugreport", "--output", str(report))
    unpacked = world.run("tar", "-xOzf", str(report)).stdout
    shown = [unpacked, world.log(), *(world.cli(*words).stdout for words in (("status", "--json"), ("doctor",)))]
    files = filter(Path.is_file, world.state_root.rglob("*"))
    shown += [path.read_bytes().decode("utf-8", "replace") for path in files]
    for pid in world.pids():
        with contextlib.suppress(OSError):
            shown.append(Path(f"/proc/{pid}/cmdline").read_text())
    return "\n".join(shown)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgres:/me:s3cret@db/x", "can't be read"),
        pytest.param("host=127.0.0.1 port=1 password=s3cret", "not a URL", marks=pytest.mark.slow),
    ],
)
def test_an_address_of_another_form_is_reported_without_the_password(address: str, said: str) -> None:
    require_engine("databases")
    with World("databases") as world:
        world.settings.write_text(f'[broker]\nenv = {{ {DSN} = "{address}" }}\n')
        shim = world.shim("--backend", "pgvector")
        shim.initialize()
        answer = shim.request("tools/call", {"name": "mempalace_search", "arguments": {"query": "x"}})
        eventually(lambda: said in json.dumps(world.broker().status()), what="what is wrong in status")
        assert "s3cret" not in json.dumps(answer) + everything_shown(world)


@repeated("kills", 1, slow=12)
@pytest.mark.parametrize(
    "backend", ["pgvector", *(pytest.param(name, marks=pytest.mark.slow) for name in BACKENDS[1:])]
)
def test_nothing_acknowledged_is_lost_whatever_is_killed(postgres: Postgres, backend: str, kills: int) -> None:
    require_backend(backend)
    with world_of(postgres, MEMPALACE_BACKEND=backend) as world:
        with Load(world, sessions=3) as load:
            for kill in range(kills):
                load.wait_writes(6 * (kill + 1))
                if kill % 2:
                    world.broker().kill()
                else:
                    kill_engine(world)
            load.wait_writes(6 * (kills + 1))
        load.verify()


def test_a_kill_of_mempalace_while_it_notes_the_database_is_mended(postgres: Postgres) -> None:
    with world_of(postgres) as world:
        shim = world.shim("--backend", "pgvector")
        shim.initialize()
        fill(shim, 1)
        marker = world.palace / "pgvector_backend.json"
        whole = json.loads(marker.read_text())
        marker.write_text(json.dumps(whole)[:40])  # as a bare mempalace leaves it
        kill_engine(world)
        assert shim.call_tool("search", query="heron")["results"]
        fill(shim, 2)
        assert json.loads(marker.read_text())["pgvector"] == whole["pgvector"]


@pytest.mark.slow
def test_a_parked_engine_lets_go_of_a_palace_in_a_database(postgres: Postgres) -> None:
    with world_of(postgres, MEMPALACE_BROKER_PARK_S="1") as world:
        shim = world.shim("--backend", "pgvector")
        shim.initialize()
        fill(shim, 1)
        eventually(lambda: world.broker().status()["engine"]["state"] == "parked", 20, "a parked engine")
        pid = world.broker().status()["engine"]["pid"]
        assert shim.call_tool("search", query="heron")["results"]
        assert world.broker().status()["engine"]["pid"] == pid


# -- backup, and moving ------------------------------------------------------------------------------------


def test_drawers_move_to_a_database_and_back(postgres: Postgres) -> None:
    with World("databases") as world:
        shim = world.shim()
        shim.initialize()
        ids = fill(shim, 12)
        shim.call_tool("kg_add", subject="a", predicate="is", object="b")
        found = shim.call_tool("search", query="heron in the water", limit=3)["results"]
        assert world.cli("move-to", "pgvector").returncode == errors.EXIT_CONFIG
        done = world.cli("move-to", "pgvector", env={DSN: postgres.dsn()})
        assert done.returncode == 0, done.stderr
        assert "mempalace_drawers: 12 rows" in done.stdout
        (kept,) = world.state_root.glob("palace.before-*")
        assert (kept / "chroma.sqlite3").is_file()
        assert not (world.palace / "chroma.sqlite3").exists()
        assert postgres.count() == 12

        there = shim.call_tool("search", query="heron in the water", limit=3)["results"]
        assert [hit["drawer_id"] for hit in there] == [hit["drawer_id"] for hit in found]
        assert shim.call_tool("kg_query", entity="a")["active_facts"]
        assert shim.call_tool("delete_drawer", drawer_id=ids[0])["success"]
        assert "storage    pgvector at 127.0.0.1" in world.cli("status").stdout
        assert "The drawers are in pgvector" in world.cli("backup", "create", "--untried").stdout
        assert "the drawers are in pgvector" in world.cli("exclusive", "--", "true").stderr

        back = world.cli("move-to", "chroma")
        assert back.returncode == 0, back.stderr
        assert shim.call_tool("status")["total_drawers"] == 11
        assert postgres.password not in everything_shown(world)


def test_a_move_that_is_killed_goes_on(postgres: Postgres) -> None:
    with world_of(postgres) as world:
        shim = world.shim()
        shim.initialize()
        fill(shim, 8)
        note = world.state("moving.json")
        moving = subprocess.Popen(
            [world.program("mempalace-broker"), "move-to", "pgvector"],
            env=world.env,
            cwd=world.cwd,
            stderr=subprocess.DEVNULL,
        )
        eventually(note.exists, 60, "the beginning of the copy")
        for pid in (moving.pid, *engines_at_work(moving.pid)):
            with contextlib.suppress(ProcessLookupError):
                subprocess.run(["kill", f"-{signal.SIGKILL:d}", str(pid)], check=False, stderr=subprocess.DEVNULL)
        moving.wait()
        assert shim.call_tool("status")["total_drawers"] == 8  # as before
        fill(shim, 10)
        done = world.cli("move-to", "pgvector")
        assert done.returncode == 0, done.stderr
        assert not note.exists()
        assert shim.call_tool("status")["total_drawers"] == 10
        assert not list(world.state_root.glob("palace.moving-to-*"))
        assert not list(note.parent.glob("moving-to-*"))


def engines_at_work(pid: int) -> list[int]:
    """The children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.mark.slow
def test_a_move_is_whole_or_not_at_all_wherever_it_is_killed(postgres: Postgres) -> None:
    with world_of(postgres) as world:
        shim = world.shim()
        shim.initialize()
        fill(shim, 8)
        assert world.cli("move-to", "pgvector", timeout=120).returncode == 0
        assert world.cli("move-to", "chroma", timeout=120).returncode == 0
        assert "rows of this palace in mempalace_drawers" in world.cli("move-to", "pgvector").stderr
        for target in ("pgvector", "chroma") * 2:
            for delay in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
                command = [world.program("mempalace-broker"), "move-to", target, "--replace"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(
                        command, env=world.env, cwd=world.cwd, timeout=delay, check=False, capture_output=True
                    )
                assert shim.call_tool("status", 90)["total_drawers"] == 8
            done = world.cli("move-to", target, "--replace", timeout=120)
            assert done.returncode == 0 or "already" in done.stderr, done.stderr
            assert shim.call_tool("search", query="heron", limit=1)["results"]
            assert world.broker().status()["engine"]["backend"] == target
