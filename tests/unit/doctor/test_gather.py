"""Gathering facts sees everything, changes nothing, and survives anything."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.doctor.facts import Facts
from mempalace_broker.doctor.gather import exposed_above, gather
from mempalace_broker.doctor.open_files import find_open_files
from mempalace_broker.protocol.record import BadRecord, DiscoveryRecord, encode
from mempalace_broker.route.ask import BrokerReply
from mempalace_broker.route.machine.election import CONNECT_OK
from mempalace_broker.system.find_palace import resolve_palace
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.paths import Context
from mempalace_broker.system.private import VARIABLE, state_folder
from mempalace_broker.system.process_ids import process_of


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mpb-", dir="/tmp") as folder:
        yield Path(os.path.realpath(folder))


def looked(home: Path, **env: str) -> Facts:
    variables = {"HOME": str(home), "PATH": "/nowhere", VARIABLE: str(home / "private"), **env}
    identity = resolve_palace(str(home / ".mempalace" / "palace"), variables, str(home))
    return gather(Context(identity, variables))


def tree(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in home.rglob("*")}


def test_an_empty_home_stays_empty(home: Path) -> None:
    facts = looked(home)
    assert tree(home) == {}
    assert isinstance(facts.record, BadRecord)
    assert facts.record.absent
    assert facts.reply.answer is None
    assert facts.owner.held is False
    assert facts.palace.entry.kind == ""
    assert facts.palace.free
    assert facts.model_state == "missing"
    assert facts.engine.problem
    assert facts.open_files == []


def test_another_mempalace_on_path_is_a_fact(home: Path) -> None:
    """The engine is the one that is installed for the user, whatever PATH this terminal has."""
    for folder, version in ((home / ".local", "3.11.0"), (home / "v", "3.4.0")):
        python = folder / "bin" / "python3.11"
        python.parent.mkdir(parents=True)
        python.symlink_to("/bin/true")
        (folder / "pyvenv.cfg").write_text("version = 3.11.4\n")
        info = folder / "lib" / "python3.11" / "site-packages" / f"mempalace-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").touch()
        (folder / "bin" / "mempalace-mcp").write_text(f"#!{python}\n")
        (folder / "bin" / "mempalace-mcp").chmod(0o755)
    engine = looked(home, PATH=f"{home}/v/bin:{home}/.local/bin").engine
    assert (engine.version, engine.on_path) == ("3.11.0", ("3.4.0", f"{home}/v/bin/python3.11"))
    assert looked(home, PATH=f"{home}/.local/bin:{home}/v/bin").engine.on_path is None


def test_locks_records_and_leftovers_are_seen_and_left_alone(home: Path) -> None:
    palace = home / ".mempalace" / "palace"
    palace.mkdir(parents=True)
    (palace / "abc.corrupt-1").mkdir()
    (palace / "chroma.sqlite3").write_bytes(b"no database, and never opened")
    (home / ".mempalace" / "broker-exit.json").write_text('{"reason": "of somebody else"}')
    state_folder(str(palace), {VARIABLE: str(home / "private")}).file("broker-exit.json").write(b'{"reason": "idle"}')
    (home / ".mempalace" / "broker.json").write_text("{half")
    (home / ".mempalace" / "broker.toml").write_text("[broker]\nengine = '/evil'\n")
    (home / "private" / "config.toml").write_text("[broker]\nidle_s = 7\n")
    lock = FileLock(str(palace / "broker.lock"))
    assert lock.try_acquire()
    lock.write_body(json.dumps({"pid": os.getpid(), "start": "x", "boot": "y", "pidns": "z"}).encode())
    before = tree(home)
    facts = looked(home)
    assert tree(home) == before
    lock.release()
    assert facts.owner.held
    assert facts.owner.pid == os.getpid()
    assert isinstance(facts.record, BadRecord)
    assert not facts.record.absent
    assert facts.leftovers == ["abc.corrupt-1"]
    assert facts.last_exit == {"reason": "idle"}
    assert facts.settings["idle_s"]["value"] == 7
    assert facts.settings_path == str(home / "private" / "config.toml")
    assert facts.shared_settings.misplaced == ["[broker] engine"]
    assert facts.private_problem == ""
    assert facts.has_palace


def test_a_database_is_asked_only_where_its_broker_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = process_of(os.getpid())
    engine = {"backend": "pgvector", "storage": {"where": "127.0.0.1:1/x"}}
    answer = BrokerReply(CONNECT_OK, "/s", {"broker": {"pid": broker.pid}, "engine": engine})
    monkeypatch.setattr("mempalace_broker.doctor.gather.ask_broker", lambda *_: answer)
    (home / ".mempalace" / "palace").mkdir(parents=True)
    file = home / ".mempalace" / "broker.json"
    for pidns, asked in (("pid:[1]", False), (broker.pidns, True)):
        who: dict[str, Any] = {"start": broker.start, "boot": broker.boot, "pidns": pidns}
        record = DiscoveryRecord(record="ab", pid=broker.pid, endpoints=["unix:/s"], palace={"path": "/p"}, **who)
        file.write_bytes(encode(record))
        assert bool(looked(home).database) is asked
    for other in ("text", {"backend": "pgvector", "storage": "text"}):
        assert answer.answer is not None
        answer.answer["engine"] = other
        assert looked(home).database == ""
    file.unlink()
    assert looked(home).database == ""


def test_upstreams_records_and_write_lock(home: Path) -> None:
    base = home / ".mempalace"
    palace = base / "palace"
    for folder in (base / "server" / "k", base / "daemon" / "k", base / "locks", palace):
        folder.mkdir(parents=True)
    note = {"pid": os.getpid(), "palace_path": str(palace)}
    (base / "server" / "k" / "serverinfo.json").write_text(json.dumps(note))
    (base / "daemon" / "k" / "endpoint.json").write_text('{"pid": 4194300}')
    key = hashlib.sha256(os.fsencode(palace)).hexdigest()[:16]
    (base / "locks" / f"mine_palace_{key}.lock").write_bytes(b"\x004711 mempalace-mcp")
    facts = looked(home)
    assert [(entry.kind, entry.alive) for entry in facts.upstream_processes] == [("hub", True), ("daemon", False)]
    assert (facts.upstream_lock.held, facts.upstream_lock.pid) == (False, 4711)


def test_wrong_settings_are_a_fact_and_not_an_error(home: Path) -> None:
    facts = looked(home, MEMPALACE_BROKER_IDLE_S="soon")
    assert "MEMPALACE_BROKER_IDLE_S" in facts.settings_problem
    assert facts.settings == {}


def test_a_private_folder_that_cannot_be_is_a_fact(home: Path) -> None:
    (home / "file").write_bytes(b"")
    assert "is not a folder" in looked(home, **{VARIABLE: str(home / "file")}).private_problem


def test_variables_are_noted(home: Path) -> None:
    assert looked(home, MEMPALACE_BROKER_NO_SPAWN="1").variables == {"MEMPALACE_BROKER_NO_SPAWN": "1"}


def test_a_good_record_of_a_dead_process(home: Path) -> None:
    base = home / ".mempalace"
    base.mkdir()
    raw = {"schema": 1, "record": "r", "pid": 4194300, "endpoints": ["unix:/x"], "palace": {"path": "/p"}}
    (base / "broker.json").write_text(json.dumps(raw))
    facts = looked(home)
    assert isinstance(facts.record, DiscoveryRecord)
    assert facts.record_process != "alive"


def test_a_process_that_has_a_palace_file_open_is_found(home: Path) -> None:
    palace = home / "palace"
    (palace / "seg").mkdir(parents=True)
    graph = home / "graph.sqlite3"
    for path in (palace / "chroma.sqlite3", palace / "seg" / "link_lists.bin", palace / "broker.lock", graph):
        path.write_bytes(b"")
    assert find_open_files(str(palace), str(graph)) == []
    with (palace / "broker.lock").open("rb"):
        assert find_open_files(str(palace), str(graph)) == []
    with (palace / "seg" / "link_lists.bin").open("rb"), graph.open("rb"):
        (found,) = find_open_files(str(palace), str(graph))
    assert found.pid == os.getpid()
    assert found.files == tuple(sorted((str(graph), str(palace / "seg" / "link_lists.bin"))))


def test_a_folder_above_the_palace_in_which_others_can_rename_it(tmp_path: Path) -> None:
    palace = tmp_path / "shared" / "mine" / "palace"
    palace.mkdir(parents=True, mode=0o700)
    assert exposed_above(str(palace)) == ""
    shared = tmp_path / "shared"
    shared.chmod(0o777)
    assert exposed_above(str(palace)) == str(shared)
    assert exposed_above(str(palace / "not" / "there")) == str(shared)
    shared.chmod(0o1777)
    assert exposed_above(str(palace)) == ""
