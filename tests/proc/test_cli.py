"""The command line against real brokers and engines: what a person types, and what comes of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import EXIT_FINDINGS, EXIT_HELD, EXIT_NOT_RUNNING, EXIT_OK, EXIT_UNAVAILABLE
from tests import harness, proctools
from tests.harness import World, eventually

CLI = [sys.executable, "-m", "mempalace_broker"]


@pytest.fixture
def newest(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world with the newest engine only: the command line is the same for all."""
    harness.require_engine("newest")
    with World("newest") as made:
        yield made


def document(done: subprocess.CompletedProcess[str], code: int = EXIT_OK) -> Any:
    """The one JSON document on stdout."""
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def ready(world: World) -> dict[str, Any]:
    """The status, once the engine is ready."""
    world.broker().engine_pid()
    status: dict[str, Any] = document(world.cli("status", "--json"))
    return status


@pytest.mark.engine
def test_life_of_a_broker(newest: World) -> None:
    world = newest
    assert world.cli("status").returncode == EXIT_NOT_RUNNING
    first = document(world.cli("ensure"))
    assert first["started"] is True
    assert first["endpoint"] == f"unix:{world.state_root}/broker.sock"
    again = document(world.cli("ensure"))
    assert (again["started"], again["pid"], again["record"]) == (False, first["pid"], first["record"])
    status = ready(world)
    assert status["broker"]["pid"] == first["pid"]
    shown = world.cli("status").stdout
    for piece in ("● serving", str(world.palace), f"pid {first['pid']}", "ready", "nothing is degraded"):
        assert piece in shown
    assert "serving" in world.cli("logs").stdout
    assert document(world.cli("stop", "--json")) == {"was_running": True, "pid": first["pid"]}
    assert not proctools.is_running(first["pid"])
    assert not proctools.is_running(status["engine"]["pid"])
    gone = world.cli("status")
    assert gone.returncode == EXIT_NOT_RUNNING
    assert "mempalace-broker stop" in gone.stdout


@pytest.mark.engine
def test_status_says_what_is_documented(newest: World) -> None:
    text = (harness.REPO / "docs" / "status.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z_.]+)`", text))
    shim = newest.shim()
    shim.initialize()
    shim.call_tool("status")
    status = ready(newest)
    for part in ("broker", "palace", "engine", "lanes"):
        fields = {f"{part}.{name}" for name in status[part]}
        assert fields == {name for name in documented if name.startswith(f"{part}.") and name != "broker.json"}
    for rows in (status["sessions"], [status["counters"]], status["engine"]["tuneups"], [status["lanes"]["palace"]]):
        assert set(rows[0]) <= documented
    assert set(status) <= documented | {"broker", "palace", "engine", "lanes"}


@pytest.mark.engine
def test_many_ensures_at_once_are_one_broker(newest: World) -> None:
    argv = [*CLI, "ensure"]
    children = [
        subprocess.Popen(argv, env=newest.env, cwd=newest.cwd, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    said = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    assert len({one["pid"] for one in said}) == 1
    assert sum(one["started"] for one in said) == 1
    eventually(lambda: newest.brokers() == [said[0]["pid"]], what="one broker, any that lost the race gone")


@pytest.mark.engine
def test_a_session_lives_through_restart(newest: World) -> None:
    shim = newest.shim()
    shim.initialize()
    stored = shim.call_tool("add_drawer", wing="w", room="r", content="a drawer from before the restart")
    before = newest.broker().pid
    after = document(newest.cli("restart"))
    assert after["pid"] != before
    found = shim.call_tool("get_drawer", drawer_id=stored["drawer_id"])
    assert "before the restart" in json.dumps(found)
    assert shim.untaken() == []


@pytest.mark.engine
def test_stop_ends_although_sessions_start_the_next_one_at_once(newest: World) -> None:
    shims = [newest.shim() for _ in range(3)]
    for shim in shims:
        shim.initialize()
        shim.call_tool("kg_stats")
    first = newest.broker().pid
    assert document(newest.cli("stop", "--json")) == {"was_running": True, "pid": first}
    assert not proctools.is_running(first)
    for shim in shims:
        shim.call_tool("kg_stats")
    assert newest.broker().pid != first


@pytest.mark.engine
def test_restart_without_a_broker_starts_one(newest: World) -> None:
    said = document(newest.cli("restart", "--json"))
    assert said["started"] is True
    assert said.keys() == document(newest.cli("ensure")).keys()


@pytest.mark.engine
def test_a_stopped_broker_is_told_from_a_dead_one_and_can_be_killed(newest: World) -> None:
    world = newest
    world.cli("ensure")
    broker = world.broker()
    engine = broker.engine_pid()
    broker.stop()
    silent = world.cli("status", "--json")
    told = document(silent, EXIT_UNAVAILABLE)
    assert told["owner"]["pid"] == broker.pid
    refused = world.cli("stop")
    assert refused.returncode == EXIT_HELD
    assert f"pid {broker.pid}" in refused.stderr
    assert "stop --now" in refused.stderr
    found = document(world.cli("doctor", "--json"), EXIT_FINDINGS)
    assert any(row["what"] == "broker" and row["severity"] == "error" for row in found["findings"])
    assert world.cli("stop", "--now").returncode == EXIT_OK
    assert not proctools.is_running(broker.pid)
    eventually(lambda: not proctools.is_running(engine), what="the end of its engine, whose lock is free")


@pytest.mark.engine
def test_stop_now_with_a_call_under_way(newest: World) -> None:
    shim = newest.shim()
    shim.initialize()
    shim.call_tool("status")
    shim.start_call("event_wait", timeout_ms=60_000)
    assert newest.cli("stop", "--now", timeout=30).returncode == EXIT_OK
    shim.kill()


@pytest.mark.engine
def test_doctor_is_content_and_changes_nothing(newest: World) -> None:
    world = newest
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="something to look at")
    found = document(world.cli("doctor", "--json"))
    assert found["ok"], [row for row in found["findings"] if row["severity"] in ("warn", "error")]
    rows = {row["what"]: row for row in found["findings"]}
    assert str(world.broker().status()["engine"]["pid"]) in rows["palace files"]["detail"]
    assert rows["upstream write lock"]["severity"] == "ok"
    assert rows["embedding model"]["severity"] == "ok"


@pytest.mark.engine
def test_doctor_names_a_stray_mempalace(newest: World) -> None:
    world = newest
    stray = world.bare()
    stray.initialize()
    stray.call_tool("add_drawer", wing="w", room="r", content="written beside the broker")
    found = document(world.cli("doctor", "--json"), EXIT_FINDINGS)
    (row,) = [row for row in found["findings"] if row["what"] == "foreign opener"]
    assert f"pid {stray.pid}" in row["detail"]
    assert "mempalace-mcp" in row["detail"]
    assert "mp-shim" in row["hint"]


@pytest.mark.engine
def test_run_in_the_foreground_drains_on_interrupt(newest: World) -> None:
    world = newest
    log = world.root / "run.stderr"
    with log.open("wb") as stderr:
        child = subprocess.Popen(
            [*CLI, "run"], env=world.env, cwd=world.cwd, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True
        )
    assert world.broker().pid == child.pid
    second = world.cli("run")
    assert second.returncode == EXIT_HELD
    assert "runs already" in second.stderr
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == EXIT_OK
    assert "leaving: SIGINT" in log.read_text()
    assert world.record() is None


@pytest.mark.engine
def test_a_service_stands_by_while_an_agents_broker_serves(newest: World) -> None:
    """Neither fights the other: the lock decides, and the service comes when nobody serves."""
    world = newest
    with (world.root / "run.stderr").open("wb") as stderr:
        assert world.cli("ensure").returncode == EXIT_OK
        first = world.broker()
        child = subprocess.Popen(
            [*CLI, "run", "--standby"], env=world.env, cwd=world.cwd, stderr=stderr, stdin=subprocess.DEVNULL
        )
        eventually(lambda: "standing by" in (world.root / "run.stderr").read_text(), what="it to stand by")
        assert world.broker().pid == first.pid
        assert world.cli("stop").returncode == EXIT_OK
        eventually(lambda: (record := world.record()) and record["pid"] == child.pid, what="the service's broker")
        assert world.cli("stop").returncode == EXIT_OK
        assert child.wait(20) == EXIT_OK, "its manager starts it again"


@pytest.mark.engine
def test_logs_follow(newest: World) -> None:
    world = newest
    world.cli("ensure")
    out = world.root / "follow.out"
    with out.open("wb") as stdout:
        child = subprocess.Popen([*CLI, "logs", "-f", "-n", "0"], env=world.env, cwd=world.cwd, stdout=stdout)
    try:
        with world.state("broker.log").open("a") as file:

            def seen() -> bool:
                file.write("a new line\n")
                file.flush()
                return "a new line" in out.read_text()

            eventually(seen, what="the new line")
    finally:
        child.send_signal(signal.SIGINT)
    assert child.wait(10) == EXIT_OK


@pytest.mark.engine
def test_status_into_a_closed_pipe_is_quiet(newest: World) -> None:
    newest.cli("ensure")
    done = newest.run("/bin/sh", "-c", f"{sys.executable} -m mempalace_broker logs | true; echo over")
    assert done.stdout == "over\n"
    assert "Traceback" not in done.stderr


@pytest.mark.engine
def test_no_engine_is_said_by_status_and_doctor(newest: World) -> None:
    env = {"MEMPALACE_BROKER_ENGINE": "/nowhere/python"}
    world = newest
    assert world.cli("ensure", env=env).returncode == EXIT_OK

    def hopeless() -> bool:
        status = document(world.cli("status", "--json"))
        return any("/nowhere/python" in entry["what"] for entry in status["degraded"])

    eventually(hopeless, what="status says that there is no engine")
    assert "MEMPALACE_BROKER_ENGINE=/nowhere/python" in world.cli("status").stdout
    found = document(world.cli("doctor", "--json", env=env), EXIT_FINDINGS)
    assert any(row["what"] == "mempalace" and row["severity"] == "error" for row in found["findings"])


@pytest.mark.engine
def test_a_state_root_that_cannot_be_written(newest: World) -> None:
    if os.geteuid() == 0:
        target = newest.root / "file"
        target.write_text("in the way")
        palace = target / "palace"
    else:
        newest.state_root.chmod(0o500)
        palace = newest.palace
    done = newest.cli("ensure", "--palace", str(palace))
    assert done.returncode in (69, 73)
    assert done.stderr.startswith("mempalace-broker: ")
    assert "Hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo(world: World, tmp_path: Path) -> None:
    """Both engine versions: everything real, everything found, nothing left."""
    report = document(world.cli("demo", "--json", timeout=110))
    failed = [check for check in report["checks"] if not check["ok"]]
    assert failed == []
    assert report["ok"] is True
    assert len(report["checks"]) >= 9
    assert report["facts"]["killed_engine_pid"]
    assert report["status"]["engine"]["restarts"] >= 1
    assert {row["call"] for row in report["calls"]} >= {"add_drawer", "search", "get_drawer", "diary_write", "kg_add"}
    assert not Path(report["dir"]).exists()
    assert world.record() is None, "the user's own palace was touched"


@pytest.mark.engine
def test_demo_cleans_up_when_interrupted(newest: World) -> None:
    place = newest.root / "d"
    child = subprocess.Popen(
        [*CLI, "demo", "--dir", str(place)],
        env=newest.env,
        cwd=newest.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    eventually((place / "home/.mempalace/broker.json").exists, what="the demo's broker")
    for _ in range(2):  # people press it twice
        child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"Traceback" not in stderr
    assert not place.exists()
    eventually(lambda: not [p for p in newest.pids() if p != os.getpid()], what="the end of all processes")


@pytest.mark.engine
def test_a_bug_report_of_a_broker_in_use_has_no_word_of_the_memory(newest: World) -> None:
    world = newest
    world.settings.write_text('[broker]\nhttp = true\nenv = { MEMPALACE_X_TOKEN = "planted-secret" }\n')
    world.settings.chmod(0o600)
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="the capybara said a planted sentence")
    shim.call_tool("search", query="capybara planted question")
    shim.call_tool("diary_write", agent_name="a", entry="a planted diary entry")
    shim.start_call("no_such_tool_of_capybaras", text="planted argument")
    tokens = [world.cli("token", *words).stdout.strip() for words in ([], ["--http"])]
    done = document(world.cli("bugreport", "--output", "report.tar.gz", "--json"))
    shown = world.run("tar", "-xzOf", done["file"]).stdout
    assert set(done["parts"]) >= {"status.json", "doctor.json", "broker.log"}
    assert "serving" in shown
    for secret in ("capybara said", "capybara planted", "planted", *tokens):
        assert secret
        assert secret not in shown, secret
