"""What lets others in, as it is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.doctor import access_facts
from mempalace_broker.doctor.access_facts import distrust_key, graph_alone, look_at_access
from mempalace_broker.doctor.facts import AccessFacts
from mempalace_broker.locality.machine.path_map import Mount
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route.bridge.wire import SshTarget
from mempalace_broker.route.plan import Plan
from mempalace_broker.system.paths import StateFiles
from tests.planted import plant

RUN = 'command="mempalace-broker ssh-command'
KEY = "ssh-ed25519 AAAA container"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# command=mempalace-broker",
        KEY,
        f'command="backup, now" {KEY}',
        f'{RUN}",restrict {KEY}',
        f'restrict,{RUN} --palace \\"/a b\\"" {KEY}',
        f'{RUN}",Restrict,port-forwarding,permitopen="[/r/broker.sock]:*",permitlisten="localhost:1" {KEY}',
    ],
)
def test_a_line_that_gives_the_memory_alone(line: str) -> None:
    assert distrust_key(line) == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f'{RUN}" {KEY}', "restrict"),
        (f'no-pty,{RUN}, restrict" {KEY}', "restrict"),
        (f'{RUN}",restrict,port-forwarding {KEY}', "permitopen"),
        (f'{RUN}",restrict,port-forwarding,permitopen="h:1" {KEY}', "permitlisten"),
        (f'command="~/.local/bin/mempalace-broker dial-stdio",restrict {KEY}', "guest"),
    ],
)
def test_a_line_that_gives_more(line: str, why: str) -> None:
    assert why in distrust_key(line)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(access_facts, "private_home", lambda: str(tmp_path))
    (tmp_path / ".mempalace" / "palace").mkdir(parents=True, mode=0o700)
    return tmp_path


def look(home: Path, plan: Plan | None = None) -> AccessFacts:
    root = home / ".mempalace"
    files = StateFiles(str(root), str(root / "palace"))
    return look_at_access(
        PalaceIdentity(str(root / "palace"), str(root / "knowledge_graph.sqlite3"), "config"), files, plan
    )


def test_keys_and_stores(home: Path) -> None:
    assert look(home).keys == []
    (home / ".ssh").mkdir()
    (home / ".ssh" / "authorized_keys").write_text(f'{KEY}\n\n{RUN}" {KEY}\n')
    store = home / ".mempalace" / "palace" / "chroma.sqlite3"
    store.touch()
    os.link(store, home / "snapshot")
    found = look(home)
    assert [(key.line, "restrict" in key.why) for key in found.keys] == [(3, True)]
    assert (found.store_problem, found.second_names) == ("", [str(store)])
    store.unlink()
    store.symlink_to(home / "snapshot")
    assert "chroma.sqlite3" in look(home).store_problem


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder", "socket", "second name"])
@pytest.mark.parametrize("name", ["broker.journal", "broker.journal.1", "tunnels.json", "hallways.json"])
def test_whatever_a_guest_puts_beside_the_stores_is_named(home: Path, name: str, kind: str) -> None:
    own, path = home / "own", home / ".mempalace" / name
    own.write_text("{}")
    path.write_text("{}")
    assert look(home).distrusted == []
    path.unlink()
    plant(path, kind, own)
    ((named, why),) = look(home).distrusted
    assert named == str(path)
    assert ("another name" if kind == "second name" else "not a regular file") in why


@pytest.mark.parametrize(
    ("point", "mounted", "homes"),
    [("/", False, []), (".mempalace", True, []), ("", True, [".config/mempalace-broker", ".ssh"])],
)
def test_a_mount_that_brings_a_home(
    home: Path, point: str, mounted: bool, homes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".config/mempalace-broker", ".ssh"):
        (home / name).mkdir(parents=True)
    table = [Mount("8:1", "/", "/", "overlay")]
    if point != "/":
        table.append(Mount("8:2", "/home/me", str(home / point).rstrip("/"), "ext4"))
    monkeypatch.setattr(access_facts, "mount_table", lambda: table)
    found = look(home)
    assert (found.mounted, found.homes) == (mounted, [str(home / name) for name in homes])


def test_the_control_path_of_the_users_configuration(home: Path) -> None:
    config = home / "config"
    (home / "cm").write_text("no socket")
    config.write_text(f"Host host\n  ControlPath {home}/cm\n")
    plan = Plan(SshTarget("host", config=str(config)), [], "", direct=False, why_not_direct="")
    assert "not a socket" in look(home, plan).control
    (home / "cm").unlink()
    assert look(home, plan).control == ""


@pytest.mark.parametrize(
    ("mounted", "by", "alone"),
    [
        ([".mempalace"], "default", True),
        ([".mempalace", ".config/mempalace"], "default", False),
        ([], "default", False),
        ([".mempalace"], "flag", False),
        ([".mempalace"], "env", False),
    ],
)
@pytest.mark.parametrize("volume", [False, True])
def test_a_graph_that_is_mounted_without_its_palace(mounted: list[str], by: str, alone: bool, volume: bool) -> None:
    home = "/home/dev"
    points = ["/", *([home] if volume else []), *(f"{home}/{name}" for name in mounted)]
    mounts = [Mount("8:1", "/", point, "ext4") for point in points]
    identity = PalaceIdentity(f"{home}/.config/mempalace/palace", f"{home}/.mempalace/knowledge_graph.sqlite3", by)
    assert bool(graph_alone(identity, mounts)) is alone
