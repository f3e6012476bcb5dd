"""The real engine child on both ends of the supported range of mempalace."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mempalace_broker
from mempalace_broker.errors import NOT_EXECUTED
from mempalace_broker.protocol import journal
from mempalace_broker.protocol.engine_frames import Frame
from tests.engine_driver import EngineProcess, clean_env, make_home
from tests.harness import REPO, VERSIONS, engine_python, require_engine, versions
from tests.proctools import eventually

LONG = " ".join(f"word{n} heron water stone" for n in range(300))  # about ten chunks
DRAWER = {"wing": "w", "room": "r", "content": "the heron stands in the shallow water"}


@pytest.fixture(params=versions(VERSIONS))
def engine(request: pytest.FixtureRequest) -> str:
    """Both ends of the range; in the slow run, each minor version between them as well."""
    version: str = request.param
    require_engine(version)
    return version


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path)


@pytest.fixture
def palace(tmp_path: Path) -> Path:
    return tmp_path / "palace"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EngineProcess]]:
    """One engine per version for the tests that neither end it nor mind what others stored."""
    engines: dict[str, EngineProcess] = {}

    def get(which: str) -> EngineProcess:
        if which not in engines:
            base = tmp_path_factory.mktemp("shared")
            process = EngineProcess(which, base / "palace", make_home(base), journal=base / "journal")
            engines[which] = process
            process.hello, process.ready = process.start()
            process.tool("add_drawer", DRAWER)
        return engines[which]

    yield get
    for process in engines.values():
        process.kill()


@pytest.fixture
def shared(engine: str, pool: Callable[[str], EngineProcess]) -> EngineProcess:
    return pool(engine)


@pytest.fixture
def running(engine: str, palace: Path, home: Path, tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(engine, palace, home, journal=tmp_path / "journal") as process:
        process.hello, process.ready = process.start()
        yield process


def request(method: str, params: Any = None, id_: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params or {}}).encode()


def call(tool: str, id_: Any = 1, **arguments: Any) -> bytes:
    return request("tools/call", {"name": f"mempalace_{tool}", "arguments": arguments}, id_)


def await_start(key: str, running: EngineProcess, folder: Path) -> None:
    """Wait until the journal says that a call has begun."""

    def begun() -> bool:
        if running.process.poll() is not None:  # no AssertionError: that would count as "not yet"
            raise RuntimeError(f"the engine left: {running.stderr()[-2000:]}")
        return f"S {key}".encode() in (folder / "journal").read_bytes()

    eventually(begun, what=f"the start of {key}")


# -- start -----------------------------------------------------------------------------------------------


def test_hello_tells_what_the_broker_answers_for_it(shared: EngineProcess) -> None:
    hello = shared.hello
    initialize = hello["initialize"]
    assert hello["pid"] == shared.process.pid
    assert re.fullmatch(r"3\.\d+\.\d+", hello["version"])
    assert initialize["result"]["serverInfo"] == {"name": "mempalace", "version": hello["version"]}
    assert initialize["result"]["protocolVersion"] == initialize["versions"][0] == initialize["unknown"]
    assert initialize["missing"] in initialize["versions"]
    for version in [*initialize["versions"], "1999-01-01"]:
        answer = json.loads(shared.roundtrip(request("initialize", {"protocolVersion": version})).payload)
        expected = version if version in initialize["versions"] else initialize["unknown"]
        assert answer["result"] == {**initialize["result"], "protocolVersion": expected}
    listed = json.loads(shared.roundtrip(request("tools/list"), lane="free").payload)
    assert hello["tools"] == listed["result"]["tools"]
    assert hello["graph"] == hello["palace"] + "/knowledge_graph.sqlite3"


def test_a_palace_that_is_not_there_is_not_created(running: EngineProcess, palace: Path) -> None:
    assert running.ready["drawers"] is None
    assert running.ready["degraded"] == []
    assert not palace.exists()


def test_the_graph_follows_the_way_the_palace_was_chosen(engine: str, palace: Path, home: Path) -> None:
    with EngineProcess(engine, palace, home, by="config") as process:
        hello, _ = process.start()
        assert hello["palace"] == str(palace)
        assert hello["graph"] == str(home / ".mempalace/knowledge_graph.sqlite3")


def test_ready_counts_the_drawers_and_opening_writes_nothing_of_ours(engine: str, palace: Path, home: Path) -> None:
    with EngineProcess(engine, palace, home) as process:
        process.start()
        process.tool("add_drawer", DRAWER)
        assert process.leave() == 0
    with EngineProcess(engine, palace, home) as process:
        _, ready = process.start()
        assert ready["drawers"] == 1
        assert process.tool("search", {"query": "bird"})["results"][0]["text"] == DRAWER["content"]


def test_a_second_engine_is_told_who_holds_the_write_lock(running: EngineProcess, engine: str, home: Path) -> None:
    running.tool("add_drawer", DRAWER)
    with EngineProcess(engine, Path(running.hello["palace"]), home) as second:
        second.expect("hello")
        fail = second.expect("fail")
        detail = json.loads(fail.payload)
        assert second.process.wait(20) == 75 == int(fail.tag)
        assert detail["reason"] == "write_lock_held"
        assert str(running.process.pid) in detail["message"]
        assert detail["hint"]


def test_a_stray_direct_writer_is_refused(running: EngineProcess, engine: str, home: Path, tmp_path: Path) -> None:
    running.tool("add_drawer", DRAWER)
    argv = [str(engine_python(engine).parent / "mempalace-mcp"), "--palace", running.hello["palace"]]
    line = call("add_drawer", wing="w", room="r", content="stray") + b"\n"
    done = subprocess.run(
        argv, input=line, capture_output=True, env=clean_env(home), cwd=tmp_path, timeout=60, check=False
    )
    assert b"held by PID" in done.stdout or b"-32001" in done.stdout
    assert running.tool("search", {"query": "stray"})["total_before_filter"] == 1


def test_an_interpreter_without_mempalace_fails_with_the_hint(palace: Path, home: Path) -> None:
    with EngineProcess("3.4.0", palace, home, interpreter=sys.executable) as process:
        fail = process.expect("fail")
        assert json.loads(fail.payload)["reason"] == "no_mempalace"
        assert process.process.wait(20) == 70


def find_python(version: str) -> str | None:
    installed = sorted(str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in [shutil.which(f"python{version}"), *installed]:
        probe = [str(python), "-c", "import sys; print(sys.executable)"]
        found = subprocess.run(probe, capture_output=True, text=True, check=False) if python else None
        if found is not None and found.returncode == 0:
            return found.stdout.strip()
    return None


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_it_starts_in_any_python_that_mempalace_runs_in(palace: Path, home: Path, version: str) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    with EngineProcess("3.4.0", palace, home, interpreter=python) as process:
        assert json.loads(process.expect("fail").payload)["reason"] == "no_mempalace", process.stderr()
    code = "import {0}; [__import__('{0}.' + m) for m in 'worker tuneups.apply lanes'.split()]"
    imported = subprocess.run(
        [python, "-c", code.format("mempalace_broker.engine")],
        env={"PYTHONPATH": str(Path(mempalace_broker.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert imported.returncode == 0, imported.stderr


def test_a_file_where_the_palace_should_be(engine: str, palace: Path, home: Path) -> None:
    palace.write_text("no palace")
    with EngineProcess(engine, palace, home) as process:
        assert json.loads(process.expect("fail").payload)["reason"] == "bad_palace"


def test_mempalace_is_not_imported_from_the_working_directory(
    engine: str, palace: Path, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "mempalace.py").write_text("raise SystemExit('wrong mempalace')")
    with EngineProcess(engine, palace, home, cwd=tmp_path) as process:
        process.start()


# -- calls -----------------------------------------------------------------------------------------------


def test_a_write_is_journalled_before_and_after(running: EngineProcess, tmp_path: Path) -> None:
    done = running.roundtrip(call("add_drawer", **DRAWER), key="s.1.2")
    running.roundtrip(call("kg_stats"), lane="free")
    assert journal.parse((tmp_path / "journal").read_bytes()) == ({"s.1.2": done.payload}, set())


def test_error_codes_stand_in_the_frame(shared: EngineProcess) -> None:
    assert shared.roundtrip(call("no_such_tool")).tag == "-32601"
    assert shared.roundtrip(call("add_drawer", nonsense=1)).tag == "-32602"
    assert shared.roundtrip(b"{").tag == "-32700"
    assert shared.roundtrip(b"5").tag == "-32600"
    assert shared.roundtrip(call("status")).tag == "0"


def test_a_notification_has_an_empty_answer(shared: EngineProcess) -> None:
    line = b'{"jsonrpc": "2.0", "method": "notifications/initialized"}'
    assert shared.roundtrip(line).payload == b""


BAD_LINES = [
    b"",
    b"\xff\xfe\x00",
    b"[" * 20_000,
    b'{"id": ' + b"9" * 6000 + b', "method": "ping"}',
    b'{"id": NaN, "method": "ping"}',
    b'{"id": Infinity, "method": "tools/list"}',
    b'{"id": "\\ud800", "method": "ping"}',
    b'{"id": {"a": []}, "method": "ping"}',
    b'{"id": 1, "method": 5}',
    b'{"id": 1, "method": ["a"]}',
    b'{"id": 1, "method": "tools/call"}',
    b'{"id": 1, "method": "tools/call", "params": [1]}',
    b'{"id": 1, "method": "tools/call", "params": {"name": ["x"], "arguments": 5}}',
    b'{"id": 1, "method": "tools/call", "params": {"name": "mempalace_search", "arguments": [1]}}',
    call("search", query="\ud800 lone"),
    call("search", query=5, limit="x"),
    call("search", query="x", limit=10**30),
    call("search", query="x", max_distance=float("nan")),
    call("add_drawer", wing="w", room="r", content="lone \udfff surrogate"),
    call("add_drawer", wing=["w"], room={}, content=None),
    call("kg_add", subject="\ud800", predicate="p", object="o"),
    call("diary_write", agent_name=5, entry=7),
    call("get_drawer", drawer_id="\udc80"),
    call("list_drawers", limit=-(10**40), offset=float("inf")),
]


def strictly(data: bytes) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def test_nothing_that_a_client_sends_kills_it(shared: EngineProcess) -> None:
    for line in BAD_LINES:
        done = shared.roundtrip(line)
        answer = strictly(done.payload)
        assert ("error" in answer) == (done.tag != "0"), line[:80]
    assert strictly(shared.roundtrip(b'{"id": "\\ud800", "method": "ping"}').payload)["id"] == "\ud800"
    assert shared.tool("add_drawer", DRAWER)["success"]


def test_the_free_lane_does_not_wait_for_the_palace_lane(shared: EngineProcess) -> None:
    add = call("add_drawer", wing="w", room="r", content="first " + LONG)
    long, free = shared.post_together((add, "palace", "-"), (call("kg_stats"), "free", "-"))
    order: list[Any] = []
    while len(order) < 2:
        frame = shared.next_frame()
        assert frame is not None
        order += [frame.n] if frame.verb == "done" else []
    assert order == [free, long]


def test_palace_calls_that_wait_say_when_they_begin(shared: EngineProcess) -> None:
    add, get = call("add_drawer", wing="w", room="r", content="second " + LONG), call("get_drawer", drawer_id="x")
    numbers = shared.post_together((add, "palace", "-"), *[(get, "palace", "-")] * 2)
    seen: list[Frame] = []
    while len([frame for frame in seen if frame.verb == "done"]) < 3:
        frame = shared.next_frame()
        assert frame is not None
        seen.append(frame)
    if (seen[0].verb, seen[0].n) == ("begun", numbers[0]):  # it met the tail of the call before it
        del seen[0]
    assert [(f.verb, f.n) for f in seen] == [
        ("done", numbers[0]),
        ("begun", numbers[1]),
        ("done", numbers[1]),
        ("begun", numbers[2]),
        ("done", numbers[2]),
    ]


def test_a_blocking_call_holds_up_nobody(running: EngineProcess) -> None:
    if not any(tool["name"] == "mempalace_event_wait" for tool in running.hello["tools"]):
        pytest.skip("this version has no event_wait")
    running.tool("add_drawer", DRAWER)
    for _ in range(4):
        running.post(call("event_wait", timeout_ms=20_000), lane="wait")
    begun = time.monotonic()
    running.tool("search", {"query": "bird"})
    running.tool("kg_stats", lane="free")
    assert time.monotonic() - begun < 10
    assert running.leave() == 0  # and nobody waits for them at the end


def test_prefetching_changes_no_answer(shared: EngineProcess) -> None:
    for n in range(8):
        shared.tool("add_drawer", {**DRAWER, "content": f"{DRAWER['content']} number {n}"})
    plain = [shared.tool("search", {"query": f"bird {n}"}) for n in range(5)]
    for n in range(5):
        shared.send(Frame("prefetch", 0, "palace", "-", call("search", query=f"bird {n}")))
    shared.send(Frame("prefetch", 0, "palace", "-", b"{ nonsense"))
    shared.send(Frame("prefetch", 0, "palace", "-", call("search", query="\ud800")))
    assert [shared.tool("search", {"query": f"bird {n}"}) for n in range(5)] == plain


def test_an_unknown_frame_is_passed_over(shared: EngineProcess) -> None:
    shared.send(Frame("future", 0, "-", "-", b"whatever"))
    assert shared.roundtrip(call("status")).tag == "0"


# -- the end ---------------------------------------------------------------------------------------------


def test_end_of_file_finishes_the_call_that_runs(running: EngineProcess, tmp_path: Path) -> None:
    running.tool("add_drawer", DRAWER)
    add, never = (call("add_drawer", wing="w", room="r", content=text) for text in (LONG, "never begun"))
    running.post_together((add, "palace", "k.1.1"), (never, "palace", "k.1.2"))
    await_start("k.1.1", running, tmp_path)
    assert running.leave() == 0
    done, begun = journal.parse((tmp_path / "journal").read_bytes())
    assert set(done) == {"k.1.1"}
    assert not begun


def test_a_garbled_stream_ends_it(running: EngineProcess) -> None:
    os.write(running.to_engine_fd, b"this is no frame header\n")
    assert running.process.wait(20) == 0
    assert "not a frame header" in running.stderr()


def test_end_of_file_while_it_starts(engine: str, palace: Path, home: Path) -> None:
    with EngineProcess(engine, palace, home) as process:
        assert process.leave(30) == 0


def test_its_killer_frees_the_palace_at_once(running: EngineProcess, engine: str, palace: Path, home: Path) -> None:
    answer = running.tool("add_drawer", DRAWER)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(10)
    with EngineProcess(engine, palace, home) as heir:
        heir.start()
        assert heir.tool("get_drawer", {"drawer_id": answer["drawer_id"]})["content"] == DRAWER["content"]


# -- the model -------------------------------------------------------------------------------------------


def test_without_the_model_calls_fail_fast_and_heal_when_it_arrives(engine: str, palace: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path, model=False)
    with EngineProcess(engine, palace, home) as process:
        _, ready = process.start()
        assert ready["degraded"][0]["hint"] == "mempalace-broker model install --real-home"
        begun = time.monotonic()
        refused = process.tool("add_drawer", DRAWER)
        assert refused["success"] is False
        assert "`mempalace-broker model install --real-home`" in refused["error"]
        process.tool("search", {"query": "bird"})
        assert time.monotonic() - begun < 5
        provide_model(home)
        assert process.tool("add_drawer", DRAWER)["success"]
        assert process.tool("search", {"query": "bird"})["results"]


def provide_model(home: Path) -> None:
    other = make_home(home)
    models = home / ".cache/chroma/onnx_models"
    if models.is_dir():
        models.rename(home / "old_models")
    (other / ".cache/chroma/onnx_models").rename(models)


# -- tune-ups --------------------------------------------------------------------------------------------

TABLE = REPO / "docs/architecture.md"


def documented(version: str) -> set[str]:
    """The tune-ups that the documentation's table says are in force with a version, in a palace stored in Chroma."""
    rows = [line.strip("| \n").split("|") for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    table = [[cell.strip() for cell in row] for row in rows]
    (head,) = [n for n, row in enumerate(table) if row[0] == "tune-up"]
    column = table[head].index(version.rpartition(".")[0])
    return {row[0].strip("`") for row in table[head + 2 :] if row[column] == "on"}


def test_the_tune_ups_are_in_force_that_the_documentation_names(shared: EngineProcess) -> None:
    reported = shared.ready["tuneups"]
    assert {one["name"] for one in reported if one["applied"]} == documented(shared.hello["version"])
    assert all(one["why"] for one in reported)


def test_switched_off_none_is_in_force(engine: str, palace: Path, home: Path) -> None:
    with EngineProcess(engine, palace, home, tune=False) as process:
        _, ready = process.start()
        assert [one for one in ready["tuneups"] if one["applied"]] == []
        answer = process.tool("add_drawer", DRAWER)
        deleted = process.tool("delete_drawer", {"drawer_id": answer["drawer_id"]})
        synced = process.tool("sync", {"project_dir": str(home), "apply": True})
        if engine == "3.4.0":  # upstream #1710: a delete would cost the index
            assert deleted["error"]["code"] == synced["error"]["code"] == NOT_EXECUTED
            assert "#1710" in deleted["error"]["message"]
            assert "error" not in process.tool("sync", {"project_dir": str(home)})
            assert process.tool("get_drawer", {"drawer_id": answer["drawer_id"]})["content"] == DRAWER["content"]
        else:
            assert deleted["success"]


def test_deletes_do_not_cost_the_index(engine: str, palace: Path, home: Path) -> None:
    notes = [f"heron number {n} stands in water {n * 7}" for n in range(12)]
    with EngineProcess(engine, palace, home) as process:
        process.start()
        ids = [process.tool("add_drawer", {**DRAWER, "content": text})["drawer_id"] for text in notes]
        for one in ids[:4]:
            assert process.tool("delete_drawer", {"drawer_id": one})["success"]
            process.tool("get_drawer", {"drawer_id": ids[-1]})
        assert process.leave() == 0
    for _ in range(2):
        with EngineProcess(engine, palace, home) as process:
            process.start()
            for text in notes[4:]:
                results = process.tool("search", {"query": text})["results"]
                assert results[0]["text"] == text
            assert process.leave() == 0
    assert [path.name for path in palace.iterdir() if "corrupt" in path.name or "drift" in path.name] == []


@pytest.mark.parametrize("later", versions(["newest"]))
@pytest.mark.parametrize("said", [True, False], ids=["said", "not said"])
def test_an_upgrade_does_not_take_waiting_drawers_for_lost(later: str, said: bool, palace: Path, home: Path) -> None:
    """From 3.5 on mempalace compares a stored index with the database, and allows for the threshold that it reads."""
    require_engine("3.4.0")
    require_engine(later)
    for tune, count in ((False, 4), (True, 12)):  # stored at every second write; then it stays as it is
        with EngineProcess("3.4.0", palace, home, tune=tune) as process:
            process.start()
            for n in range(count):
                process.tool("add_drawer", {**DRAWER, "content": f"heron {n} of {count} stands in water"})
            assert process.leave() == 0
    if not said:  # as a first version of this tune-up left it
        with contextlib.closing(sqlite3.connect(palace / "chroma.sqlite3")) as db, db:
            db.execute("UPDATE collection_metadata SET int_value = 2 WHERE key = 'hnsw:sync_threshold'")
        with EngineProcess(later, palace, home) as process:
            process.start()
            assert process.leave() == 0
    with EngineProcess(later, palace, home, tune=False) as process:
        process.start()
        answer = process.tool("search", {"query": "heron 11 of 12 stands in water"})
        assert "vector_disabled" not in answer
        assert answer["results"][0]["text"] == "heron 11 of 12 stands in water"
        assert process.leave() == 0


def test_a_peers_change_is_seen(engine: str, palace: Path, home: Path) -> None:
    """No tune-up hides what somebody else wrote: a row that a direct reader would find is found."""
    with EngineProcess(engine, palace, home) as process:
        process.start()
        kept = process.tool("add_drawer", DRAWER)
        process.tool("search", {"query": "bird"})
        before = process.tool("status")["total_drawers"]
        os.utime(palace / "chroma.sqlite3")  # as a writer's last touch
        assert process.tool("status")["total_drawers"] == before
        assert process.tool("search", {"query": "bird"})["results"][0]["text"] == DRAWER["content"]
        assert process.tool("get_drawer", {"drawer_id": kept["drawer_id"]})["content"] == DRAWER["content"]


# -- a long mine -----------------------------------------------------------------------------------------


def make_project(base: Path, files: int) -> Path:
    project = base / "project"
    project.mkdir()
    for n in range(files):
        text = "\n\n".join(f"Paragraph {n}.{k}: the heron eats fish number {n * k} in the river." * 6 for k in range(6))
        (project / f"note{n}.md").write_text(text)
    return project


def test_a_mine_lets_waiting_calls_in_between_two_files(running: EngineProcess, home: Path) -> None:
    if not any(tool["name"] == "mempalace_mine" for tool in running.hello["tools"]):
        pytest.skip("this version has no mine tool")
    project = make_project(home, 5)
    running.tool("add_drawer", DRAWER)
    dig, look = call("mine", source=str(project)), call("search", query="bird")
    mine, search = running.post_together((dig, "palace", "-"), (look, "palace", "-"))
    order: list[tuple[str, int]] = []
    told: list[tuple[int, str]] = []
    answers: dict[int, Any] = {}
    while mine not in answers:
        frame = running.next_frame()
        assert frame is not None
        if frame.verb == "progress":
            told.append((frame.n, frame.tag))
            continue
        order.append((frame.verb, frame.n))
        if frame.verb == "done":
            answers[frame.n] = json.loads(frame.payload)
    assert told[0] == (mine, "1/5"), "it says how far it is"
    assert [item for item in order if item != ("begun", mine)] == [("begun", search), ("done", search), ("done", mine)]
    text = answers[mine]["result"]["content"][0]["text"]
    assert json.loads(text)["success"], text
    assert running.tool("search", {"query": "heron eats fish number 55"})["results"]


def test_a_mine_lets_calls_in_while_it_embeds_a_file(running: EngineProcess, home: Path) -> None:
    if not any(tool["name"] == "mempalace_mine" for tool in running.hello["tools"]):
        pytest.skip("this version has no mine tool")
    project = make_project(home, 1)
    words = [f"the heron eats fish number {n * 7} in the river by the mill" for n in range(400)]
    (project / "note0.md").write_text("\n\n".join(words))
    running.tool("add_drawer", DRAWER)
    mine = running.post(call("mine", source=str(project), wing="mined"))
    answered, done = -1, Frame("done")
    while done.n != mine:
        answered += 1
        running.post(call("search", query=f"bird {answered}"))
        while (frame := running.next_frame()) is not None and frame.verb != "done":
            pass
        assert frame is not None
        done = frame
    assert json.loads(json.loads(done.payload)["result"]["content"][0]["text"])["success"]
    assert answered > 8  # as many would run before the only file
    assert running.tool("search", {"query": words[390], "wing": "mined"})["results"]


def test_a_mine_ends_at_a_file_when_the_broker_is_gone(running: EngineProcess, home: Path, tmp_path: Path) -> None:
    if not any(tool["name"] == "mempalace_mine" for tool in running.hello["tools"]):
        pytest.skip("this version has no mine tool")
    project = make_project(home, 60)
    running.post(call("mine", source=str(project)), key="m.1.1")
    await_start("m.1.1", running, tmp_path)
    assert running.leave(30) == 0
    assert journal.parse((tmp_path / "journal").read_bytes()) == ({}, {"m.1.1"})
