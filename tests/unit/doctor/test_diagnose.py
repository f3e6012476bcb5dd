"""Doctor's judgement: facts in, findings out. One healthy world, and what each single change makes of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mempalace_broker.doctor.diagnose import judge
from mempalace_broker.doctor.facts import (
    AccessFacts,
    EngineFacts,
    Facts,
    FileEntry,
    FolderFacts,
    KeyFacts,
    LockFacts,
    UpstreamProcess,
)
from mempalace_broker.doctor.findings import Finding, Severity
from mempalace_broker.doctor.integrations import Integration
from mempalace_broker.doctor.open_files import OpenFile
from mempalace_broker.doctor.upstream_clients import HookRouting
from mempalace_broker.locality.locality import Locality
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import BadRecord, DiscoveryRecord
from mempalace_broker.route.ask import BrokerReply
from mempalace_broker.route.machine.election import (
    CONNECT_DENIED,
    CONNECT_ENOENT,
    CONNECT_OK,
    CONNECT_REFUSED,
    RECORD_ABSENT,
    RECORD_MINE,
)
from mempalace_broker.route.plan import Plan
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.process_ids import ALIVE, DEAD, UNKNOWN

P, ROOT = "/h/.mempalace/palace", "/h/.mempalace"
SOCKET = f"{ROOT}/broker.sock"
BROKER, ENGINE = 100, 101
STATUS: dict[str, Any] = {
    "broker": {"pid": BROKER, "state": "serving", "version": "0.1", "record": "r1", "started_at": 1000.0},
    "engine": {"pid": ENGINE, "version": "3.11.0", "tuneups": [{"name": "pin-once", "applied": True}]},
    "settings": {"idle_s": {"value": 900, "source": "default"}},
    "degraded": [],
}


def record(**changes: Any) -> DiscoveryRecord:
    return DiscoveryRecord(
        **{"record": "r1", "pid": BROKER, "endpoints": [f"unix:{SOCKET}"], "palace": {"path": P}, **changes}
    )


def healthy() -> Facts:
    """A broker that serves, on a good machine."""
    folder = FolderFacts(FileEntry(P, "dir", 0o700, 1000, True), "ext4", True, 50 << 30)
    return Facts(
        identity=PalaceIdentity(P, f"{ROOT}/knowledge_graph.sqlite3", "config"),
        files=StateFiles(ROOT, P),
        palace=folder,
        root=dataclasses.replace(folder, entry=FileEntry(ROOT, "dir", 0o755, 1000, True)),
        owner=LockFacts(f"{P}/broker.lock", True, BROKER, ALIVE, "python"),
        engine_lock=LockFacts(f"{P}/engine.lock", True, ENGINE, ALIVE, "python"),
        start_lock=LockFacts(f"{ROOT}/broker.start.lock", False),
        record=record(),
        record_entry=FileEntry(f"{ROOT}/broker.json", "file", 0o600, 1000, True),
        record_origin=RECORD_MINE,
        record_process=ALIVE,
        reply=BrokerReply(CONNECT_OK, SOCKET, STATUS),
        socket=FileEntry(SOCKET, "socket", 0o600, 1000, True),
        lent_to="",
        open_files=[OpenFile(ENGINE, "python", (f"{P}/chroma.sqlite3",))],
        integrations=[],
        upstream_processes=[],
        upstream_lock=LockFacts("/h/lease", True, ENGINE),
        hook_routing=HookRouting("direct", f"{ROOT}/config.json"),
        proxy="",
        engine=EngineFacts("/e/python", "3.11.0", "the broker's own environment"),
        model_state="cached",
        model_kind="other",
        model_folder="/h/model",
        platform="linux",
        uid=1000,
        now=2000.0,
        locality=Locality.of(P, "ext4"),
        access=AccessFacts(),
        version="0.1",
        has_palace=True,
        settings={"idle_s": {"value": 900, "source": "default"}},
    )


def stopped() -> Facts:
    """The same without a broker."""
    return dataclasses.replace(
        healthy(),
        owner=LockFacts(f"{P}/broker.lock", False, BROKER, DEAD),
        engine_lock=LockFacts(f"{P}/engine.lock", False, ENGINE, DEAD),
        record=BadRecord("there is no record", absent=True),
        record_entry=FileEntry(f"{ROOT}/broker.json"),
        record_origin=RECORD_ABSENT,
        record_process=UNKNOWN,
        reply=BrokerReply(CONNECT_ENOENT, SOCKET, None, "No such file"),
        socket=FileEntry(SOCKET),
        open_files=[],
        upstream_lock=LockFacts("/h/lease", False),
    )


def bad(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(row.severity, row.what) for row in findings if row.severity in ("warn", "error")]


def test_a_healthy_world_has_no_finding_to_act_on() -> None:
    findings = judge(healthy())
    assert bad(findings) == []
    assert not any(finding.severity.is_alarming for finding in findings)
    assert {row.what for row in findings} >= {
        "palace",
        "broker",
        "owner lock",
        "record",
        "socket",
        "mempalace",
        "settings",
    }


@pytest.mark.parametrize("section", ["broker", "engine", "settings", "degraded", "tcp"])
@pytest.mark.parametrize("value", ["text", 1, ["text"], {"storage": "text", "pid": "text", "idle_s": 1, "tuneups": 1}])
def test_an_answer_in_another_form_is_a_finding_at_most(section: str, value: object) -> None:
    findings = judge(dataclasses.replace(healthy(), reply=snapshot(**{section: value})))
    assert {row.what for row in findings} >= {"palace", "socket", "settings"}


def test_an_answer_in_another_form_is_reported() -> None:
    (finding,) = [
        row for row in judge(dataclasses.replace(healthy(), reply=snapshot(engine="x"))) if "form" in row.detail
    ]
    assert (finding.severity, finding.what) == ("error", "broker")
    assert "checks are incomplete: " in finding.detail


@pytest.mark.parametrize("tcp", [None, {"asked": "docker", "endpoint": "tcp://172.17.0.1:7723"}, {"asked": "docker0"}])
def test_a_listener_for_containers_is_in_order(tcp: dict[str, str] | None) -> None:
    assert bad(judge(dataclasses.replace(healthy(), reply=snapshot(tcp=tcp)))) == []


def test_a_container_with_a_palace_of_its_own_is_in_order() -> None:
    assert bad(judge(dataclasses.replace(healthy(), container="/.dockerenv"))) == []


def test_a_container_with_the_hosts_graph_and_a_palace_of_its_own_is_not() -> None:
    access = AccessFacts(graph_alone="/home/dev/.mempalace")
    assert bad(judge(dataclasses.replace(healthy(), access=access))) == []
    found = judge(dataclasses.replace(healthy(), access=access, container="/.dockerenv"))
    assert len(bad(found)) == 1
    assert any("/home/dev/.mempalace is mounted from elsewhere" in row.detail for row in found)


def test_a_broker_on_another_machine_is_not_judged_by_what_lies_here() -> None:
    away = dataclasses.replace(
        stopped(),
        remote="ssh://me@server",
        variables={"MEMPALACE_BROKER": "ssh://me@server"},
        engine=EngineFacts(problem="No mempalace found"),
        reply=BrokerReply(CONNECT_OK, "ssh://me@server", STATUS),
    )
    findings = judge(away)
    assert bad(findings) == []
    assert "set it for mp-shim in every agent's config" in [row.hint for row in findings]
    silent = judge(dataclasses.replace(away, reply=BrokerReply(CONNECT_ENOENT, "", None, "no route", unreachable=True)))
    assert bad(silent) == [("error", "broker")]
    assert "ssh://me@server: no route" in [row.detail for row in silent]


def test_a_missing_broker_is_not_alarming() -> None:
    findings = judge(stopped())
    assert bad(findings) == []
    assert any(row.what == "broker" and "not running" in row.detail for row in findings)


def test_a_machine_without_a_palace_is_fine_too() -> None:
    facts = dataclasses.replace(
        stopped(), palace=FolderFacts(FileEntry(P), "ext4", True, 50 << 30), has_palace=False, model_state="missing"
    )
    assert bad(judge(facts)) == []


def snapshot(**changes: Any) -> BrokerReply:
    return BrokerReply(CONNECT_OK, SOCKET, {**STATUS, **changes})


def place(**changes: Any) -> FolderFacts:
    return dataclasses.replace(healthy().palace, **changes)


FOREIGN = OpenFile(666, "mempalace-mcp", (f"{P}/chroma.sqlite3",))
CASES: dict[str, tuple[bool, dict[str, Any], list[tuple[str, str]], str]] = {
    # name: (with a broker?, what is changed, the findings, a word of the hint or detail)
    "foreign opener": (
        True,
        {"open_files": [*healthy().open_files, FOREIGN]},
        [("error", "foreign opener")],
        "kill 666",
    ),
    "foreign opener without a broker": (False, {"open_files": [FOREIGN]}, [("error", "foreign opener")], "mp-shim"),
    "silent": (
        True,
        {"reply": BrokerReply(CONNECT_OK, SOCKET, None, "no answer")},
        [("error", "broker")],
        "stop --now",
    ),
    "held, nobody listens": (
        True,
        {"reply": BrokerReply(CONNECT_REFUSED, SOCKET, None, "refused")},
        [("error", "broker")],
        "stop --now",
    ),
    "no access": (
        False,
        {"reply": BrokerReply(CONNECT_DENIED, SOCKET, None, "denied")},
        [("error", "broker")],
        "owner of the palace",
    ),
    "lock file removed under the broker": (
        True,
        {"owner": LockFacts(f"{P}/broker.lock", False)},
        [("error", "owner lock")],
        "restart",
    ),
    "start lock can't be probed": (
        False,
        {"start_lock": LockFacts(f"{ROOT}/broker.start.lock", None)},
        [("error", "start lock")],
        "remove it",
    ),
    "lock can't be probed": (False, {"owner": LockFacts(f"{P}/broker.lock", None)}, [("error", "owner lock")], "mount"),
    "another owner's lock": (
        True,
        {"owner": LockFacts(f"{P}/broker.lock", True, 555, ALIVE, "python")},
        [("warn", "owner lock")],
        "pid 555",
    ),
    "record gone": (
        True,
        {"record": BadRecord("there is no record", absent=True)},
        [("warn", "record")],
        "writes it again",
    ),
    "record of another": (True, {"record": record(record="r2")}, [("warn", "record")], "restart"),
    "record is garbage": (
        False,
        {"record": BadRecord("the record is not JSON"), "record_origin": "bad"},
        [("warn", "record")],
        "replaces",
    ),
    "record of another kernel": (
        False,
        {"record": record(host="mac"), "record_origin": "foreign"},
        [("error", "record")],
        "mac",
    ),
    "record open to others": (
        True,
        {"record_entry": FileEntry(f"{ROOT}/broker.json", "file", 0o644, 1000, True)},
        [("warn", "record")],
        "chmod 600",
    ),
    "socket open to others": (
        True,
        {"socket": FileEntry(SOCKET, "socket", 0o666, 1000)},
        [("warn", "socket")],
        "chmod",
    ),
    "a file in the socket's place": (
        False,
        {"socket": FileEntry(SOCKET, "file", 0o600, 1000)},
        [("error", "socket")],
        "",
    ),
    "orphaned engine": (
        False,
        {"engine_lock": LockFacts(f"{P}/engine.lock", True, 77, ALIVE, "python")},
        [("warn", "engine lock")],
        "77",
    ),
    "virtiofs, no bridge": (
        False,
        {
            "palace": place(filesystem="virtiofs", local=False),
            "locality": Locality.of(P, "virtiofs"),
            "plan": Plan(None, [], "", direct=True, why_not_direct=""),
        },
        [("warn", "route: direct")],
        "configure a bridge",
    ),
    "unknown filesystem, settings that make no sense": (
        True,
        {"palace": place(filesystem="", local=None), "locality": Locality.of(P, ""), "plan_problem": "no such setting"},
        [("error", "routes")],
        "docs/settings.md",
    ),
    "disk full": (True, {"palace": place(free=1 << 20)}, [("error", "palace directory: disk")], "free some"),
    "disk nearly full": (True, {"palace": place(free=500 << 20)}, [("warn", "palace directory: disk")], "free some"),
    "palace of another user": (
        False,
        {"palace": place(entry=FileEntry(P, "dir", 0o755, 0x7FFF, False))},
        [("error", "palace directory")],
        "chown",
    ),
    "palace on a disk that can't be written": (
        False,
        {"palace": place(entry=FileEntry(P, "dir", 0o700, 1000, False), read_only=True)},
        [("error", "palace directory")],
        "--palace",
    ),
    "palace open to others": (
        True,
        {"palace": place(entry=FileEntry(P, "dir", 0o777, 1000, True, True))},
        [("error", "palace directory")],
        "chmod go-w",
    ),
    "palace below a folder that others can write to": (
        True,
        {"palace": place(exposed=FileEntry("/shared", "dir", 0o777, 0, True, True))},
        [("warn", "palace directory")],
        "chmod go-w /shared",
    ),
    "palace below a folder of another user": (
        True,
        {"palace": place(exposed=FileEntry("/shared", "dir", 0o755, 0x7FFF, True, False))},
        [("warn", "palace directory")],
        "chown",
    ),
    "a mount of another kernel that shows any mode": (
        True,
        {"palace": place(entry=FileEntry(P, "dir", 0o777, 1000, True, True), local=False)},
        [("warn", "palace directory")],
        "chmod go-w",
    ),
    "a store that is a link": (
        True,
        {"access": AccessFacts(store_problem="chroma.sqlite3 can't be trusted", store_hint="remove it")},
        [("error", "stores")],
        "remove it",
    ),
    "a journal that is a link": (
        True,
        {"access": AccessFacts(distrusted=[(f"{ROOT}/broker.journal", "it is not a regular file")])},
        [("error", "shared file")],
        f"ls -la {ROOT}/broker.journal",
    ),
    "a snapshot of hard links": (
        True,
        {"access": AccessFacts(second_names=[f"{P}/chroma.sqlite3"])},
        [("warn", "stores")],
        "cp -a",
    ),
    "a key that can do more": (
        True,
        {"access": AccessFacts(keys=[KeyFacts("/h/.ssh/authorized_keys", 3, "it does not say restrict")])},
        [("warn", "ssh key")],
        'command="mempalace-broker ssh-command",restrict',
    ),
    "a control socket of somebody else": (
        True,
        {"access": AccessFacts(control="/tmp/cm belongs to another user")},
        [("warn", "ControlPath")],
        "ControlPath ~/.ssh",
    ),
    "a listener for everybody": (
        True,
        {"reply": snapshot(tcp={"asked": "any", "endpoint": "tcp://0.0.0.0:7723"})},
        [("warn", "tcp listener")],
        "mempalace-broker restart",
    ),
    "a listener for the internet, while no broker runs": (
        False,
        {"settings": {"tcp": {"value": "2a01:4f8::1", "source": "file"}}},
        [("warn", "tcp listener")],
        "mempalace-broker restart",
    ),
    "a container that may start a broker": (
        True,
        {"container": "/.dockerenv", "access": AccessFacts(mounted=True)},
        [("warn", "container")],
        "MEMPALACE_BROKER_NO_SPAWN=1",
    ),
    "a container with a whole home": (
        True,
        {
            "container": "/.dockerenv",
            "access": AccessFacts(mounted=True, homes=["/h/.ssh"]),
            "variables": {"MEMPALACE_BROKER_NO_SPAWN": "1"},
        },
        [("warn", "container")],
        "-v ~/.mempalace",
    ),
    "palace is a file": (
        False,
        {"palace": place(entry=FileEntry(P, "file", 0o600, 1000, True))},
        [("error", "palace directory")],
        "--palace",
    ),
    "upstream write lock of another": (
        True,
        {"upstream_lock": LockFacts("/h/lease", True, 888, UNKNOWN, "mempalace")},
        [("error", "upstream write lock")],
        "kill 888",
    ),
    "upstream hub": (
        True,
        {"upstream_processes": [UpstreamProcess("/h/s.json", "hub", 999, True, P, "python")]},
        [("warn", "mempalace's own hub")],
        "kill 999",
    ),
    "a plugin that opens the palace itself": (
        True,
        {"integrations": [Integration("a plugin", "/h/opencode.json", "it opens the palace", "remove it there")]},
        [("warn", "integration")],
        "/h/opencode.json",
    ),
    "set-aside index": (True, {"leftovers": ["abc.corrupt-20260101"]}, [("warn", "set-aside index")], "repair"),
    "no engine": (
        True,
        {"engine": EngineFacts(problem="No mempalace", hint="install")},
        [("error", "mempalace")],
        "inst",
    ),
    "engine upgraded": (
        True,
        {"engine": EngineFacts("/e/python", "3.12.0", "x")},
        [("warn", "mempalace")],
        "restart",
    ),
    "another on PATH": (
        True,
        {"engine": EngineFacts("/e/python", "3.11.0", "x", on_path=("3.4.0", "/v/python"))},
        [("warn", "mempalace")],
        "/v/python",
    ),
    "broker upgraded": (True, {"version": "0.2"}, [("warn", "mempalace-broker")], "restart"),
    "settings wrong": (
        True,
        {"settings_problem": "no setting named x", "settings_hint": "see"},
        [("error", "settings")],
        "see",
    ),
    "degraded": (
        True,
        {"reply": snapshot(degraded=[{"what": "full", "hint": "free it"}])},
        [("warn", "degraded")],
        "free it",
    ),
    "a schedule whose last snapshot failed": (
        True,
        {
            "settings": {"backup_every_h": {"value": 24, "source": "config.toml"}},
            "last_backup": {"made_at": 5.0, "error": "no room"},
        },
        [("warn", "snapshots")],
        "backup create",
    ),
    "clock went back": (True, {"last_exit": {"at": 99999.0, "reason": "idle"}}, [("warn", "clock")], "correct"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_thing_wrong_is_one_finding_with_its_hint(name: str) -> None:
    running, changes, expected, word = CASES[name]
    findings = judge(dataclasses.replace(healthy() if running else stopped(), **changes))
    assert bad(findings) == expected
    assert any(finding.severity.is_alarming for finding in findings)
    (row,) = [row for row in findings if row.severity in ("warn", "error")]
    assert word in f"{row.detail} {row.hint}"
    assert row.hint


COMMAND = "pid 700 (mempalace repair), since 2026-11-27 10:22:31"


@pytest.mark.parametrize("running", [True, False])
def test_a_command_that_has_the_palace_for_itself_is_no_stranger(running: bool) -> None:
    """Nor is what it started; anybody else is."""
    facts = dataclasses.replace(
        healthy() if running else stopped(),
        engine_lock=LockFacts(f"{P}/engine.lock", True, 700, ALIVE, "mempalace"),
        lent_to=COMMAND,
        open_files=[
            OpenFile(700, "mempalace", (f"{P}/chroma.sqlite3",)),
            OpenFile(701, "python", (f"{P}/chroma.sqlite3",), 0.0, ((700, "mempalace"), (1, "init"))),
        ],
        upstream_lock=LockFacts("/h/lease", True, 700, UNKNOWN, "mempalace"),
    )
    if running:
        facts = dataclasses.replace(facts, reply=snapshot(engine={"state": "lent", "pid": None}))
    findings = judge(facts)
    assert bad(findings) == []
    assert any(row.what == "engine lock" and COMMAND in row.detail and "kill 700" in row.hint for row in findings)
    stranger = OpenFile(702, "mempalace-mcp", (f"{P}/chroma.sqlite3",))
    assert bad(judge(dataclasses.replace(facts, open_files=[*facts.open_files, stranger]))) == [
        ("error", "foreign opener")
    ]


@pytest.mark.parametrize("pid", [0, 1])
def test_a_command_whose_pid_is_not_known_covers_nobody(pid: int) -> None:
    """A guest may have written the pid of init; and on macOS every process comes from the kernel's, 0."""
    stranger = OpenFile(702, "mempalace-mcp", (f"{P}/chroma.sqlite3",), 0.0, ((1, "launchd"), (0, "kernel_task")))
    facts = dataclasses.replace(
        stopped(), engine_lock=LockFacts(f"{P}/engine.lock", True, pid), lent_to="a command", open_files=[stranger]
    )
    findings = judge(facts)
    assert bad(findings) == [("error", "foreign opener")]
    assert not any("kill 0" in row.hint for row in findings)


@pytest.mark.parametrize(
    ("command", "parents", "word"),
    [
        ("mempalace-mcp", ((5, "claude"),), "put mp-shim"),
        ("mempalace_adapter.py", ((5, "opencode"),), "remove the plugin"),
        ("python", ((6, "sh"), (5, "hermes")), "memory.provider"),
        ("mempalace", ((5, "bash"),), "mempalace-broker exclusive"),
    ],
)
def test_a_stranger_is_named_with_its_parent_its_start_and_what_helps(
    command: str, parents: tuple[tuple[int, str], ...], word: str
) -> None:
    stranger = OpenFile(666, command, (f"{P}/chroma.sqlite3",), 1_795_000_000.0, parents)
    facts = dataclasses.replace(healthy(), open_files=[*healthy().open_files, stranger])
    (row,) = [row for row in judge(facts) if row.what == "foreign opener"]
    assert f"pid 666 ({command}), running since 2026-" in row.detail
    assert f"started by pid {parents[0][0]} ({parents[0][1]})" in row.detail
    assert word in row.hint
    assert "kill 666" in row.hint


def test_a_stale_upstream_record_is_only_worth_knowing() -> None:
    facts = dataclasses.replace(healthy(), upstream_processes=[UpstreamProcess("/h/s.json", "hub", 999, False, P)])
    assert any(row.severity == "info" and row.hint == "rm /h/s.json" for row in judge(facts))
    assert not any(finding.severity.is_alarming for finding in judge(facts))


def test_an_upstream_hub_of_another_palace_is_not_reported() -> None:
    facts = dataclasses.replace(
        healthy(), upstream_processes=[UpstreamProcess("/h/s.json", "hub", 999, True, "/other")]
    )
    assert bad(judge(facts)) == []


def test_the_killed_brokers_leftovers_are_explained() -> None:
    facts = dataclasses.replace(
        stopped(),
        record=record(),
        record_origin=RECORD_MINE,
        record_process=DEAD,
        reply=BrokerReply(CONNECT_REFUSED, SOCKET, None, "refused"),
        socket=FileEntry(SOCKET, "socket", 0o600, 1000),
    )
    findings = judge(facts)
    assert bad(findings) == []
    assert [row.what for row in findings if "killed" in row.detail] == ["record", "socket"]


def test_a_variable_that_agents_may_not_see_is_named() -> None:
    findings = judge(dataclasses.replace(healthy(), variables={"MEMPALACE_PALACE_PATH": P}))
    assert any(row.what == "environment" and "Codex" in row.detail for row in findings)


def test_other_settings_than_the_running_brokers_are_named() -> None:
    findings = judge(dataclasses.replace(healthy(), settings={"idle_s": {"value": 5, "source": "config.toml"}}))
    assert any(row.what == "settings" and "other values for: idle_s" in row.detail for row in findings)


def test_a_mac_is_not_blamed_for_its_missing_mountinfo() -> None:
    facts = dataclasses.replace(healthy(), platform="darwin", palace=place(filesystem="", local=None))
    assert bad(judge(facts)) == []


@pytest.mark.parametrize(("problem", "severity"), [("", "ok"), ("darwin has no Landlock", "info")])
def test_it_says_whether_the_kernel_holds_the_engines_writes(problem: str, severity: str) -> None:
    engine = {**STATUS["engine"], "write_limits": problem}
    (finding,) = (
        row
        for row in judge(dataclasses.replace(healthy(), reply=snapshot(engine=engine)))
        if row.what == "engine's writes"
    )
    assert finding.severity == severity
    assert problem in finding.detail


def test_on_a_mac_it_says_whose_folders_the_broker_may_read() -> None:
    """They are those of whatever started it, for all."""
    found = [row for row in judge(dataclasses.replace(healthy(), platform="darwin")) if row.what == "privacy"]
    assert ["started by" in row.detail or "let hand in" in row.detail for row in found] == [True]
    assert found[0].hint.startswith("where `mine`")
    assert not [row for row in judge(healthy()) if row.what == "privacy"]


def test_a_mac_knows_its_disks_from_shares() -> None:
    disk = dataclasses.replace(healthy(), platform="darwin", palace=place(filesystem="apfs", local=True))
    assert any("apfs, local to this kernel" in row.detail for row in judge(disk))
    share = dataclasses.replace(healthy(), platform="darwin", palace=place(filesystem="smbfs", local=False))
    assert any("smbfs: another kernel may have it mounted too" in row.detail for row in judge(share))


def test_findings_are_plain_data() -> None:
    for row in judge(healthy()):
        assert row.severity in Severity
        assert set(row.as_json()) == {"severity", "what", "detail", "hint"}


def parked(state: str, **changes: Any) -> list[Finding]:
    status = {**STATUS, "engine": {**STATUS["engine"], "state": state}}
    reply = BrokerReply(CONNECT_OK, SOCKET, status)
    return judge(dataclasses.replace(healthy(), reply=reply, **changes))


@pytest.mark.parametrize("state", ["parked", "unparking"])
def test_a_command_of_mempalace_s_at_work_while_the_engine_is_parked_is_as_it_should_be(state: str) -> None:
    miner = OpenFile(888, "mempalace", (f"{P}/chroma.sqlite3",))
    lock = LockFacts("/h/lease", True, 888, UNKNOWN, "mempalace")
    found = parked(state, open_files=[miner], upstream_lock=lock)
    assert bad(found) == []
    assert "while our engine is parked" in next(row.detail for row in found if row.what == "upstream write lock")
    without_lock = parked(state, open_files=[miner], upstream_lock=LockFacts("/h/lease", False))
    assert bad(without_lock) == [("error", "foreign opener")]


@pytest.mark.parametrize(
    ("park_s", "severity", "word"),
    [(1, Severity.OK, "after 1 s without a call"), (0, Severity.INFO, "a refused hook says nothing")],
)
def test_it_says_when_hooks_save(park_s: int, severity: Severity, word: str) -> None:
    settings = {"park_s": {"value": park_s, "source": "config.toml"}}
    reply = BrokerReply(CONNECT_OK, SOCKET, {**STATUS, "settings": settings})
    (hooks,) = [row for row in judge(dataclasses.replace(healthy(), reply=reply)) if row.what == "hooks"]
    assert (hooks.severity, word in hooks.detail) == (severity, True)


@pytest.mark.parametrize(
    ("version", "http", "policy", "severity", "word"),
    [
        ("3.11.0", True, "prefer", Severity.OK, "through the broker"),
        ("3.8.0", True, "require", Severity.OK, "through the broker"),
        ("3.8.0", True, "direct", Severity.INFO, '"hooks": "prefer"'),
        ("3.7.1", True, "direct", Severity.OK, "after 1 s"),
        ("3.11.0", False, "prefer", Severity.OK, "after 1 s"),
        ("odd", True, "prefer", Severity.OK, "after 1 s"),
    ],
)
def test_it_says_how_hooks_come_through_the_broker(
    version: str, http: bool, policy: str, severity: Severity, word: str
) -> None:
    settings = {"park_s": {"value": 1, "source": "default"}, "http": {"value": http, "source": "default"}}
    facts = dataclasses.replace(
        healthy(),
        reply=BrokerReply(CONNECT_OK, SOCKET, {**STATUS, "settings": settings}),
        engine=EngineFacts("/e/python", version, "x"),
        hook_routing=HookRouting(policy, "/h/config.json"),
    )
    (hooks,) = [row for row in judge(facts) if row.what == "hooks"]
    assert (hooks.severity, word in hooks.detail + hooks.hint) == (severity, True)


def test_a_proxy_in_the_way_is_named() -> None:
    (row,) = [row for row in judge(dataclasses.replace(healthy(), proxy="http://p:1")) if row.what == "http_proxy"]
    assert (row.severity, "no_proxy" in row.hint) == (Severity.WARN, True)
