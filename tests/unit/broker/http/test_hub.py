"""The record of a hub in the homes of those who use the palace, and in nobody else's."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker.http.hub import MOST_HOMES, AnotherHub, HubRecord
from mempalace_broker.broker.http.machine.hub_record import RECORD, key_of
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.private import VARIABLE

TOOLS: list[Any] = [{"name": "mempalace_mine", "inputSchema": {"properties": {"source": {}}}}]


class Place:
    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.home.mkdir()
        self.palace = str(root / "palace")
        self.env = {VARIABLE: str(root / "private"), "HOME": str(self.home)}
        self.files = StateFiles(str(root), self.palace, env=self.env)
        self.hub = HubRecord(self.files, self.env)

    def folder(self, home: Path | None = None) -> Path:
        return (home or self.home) / ".mempalace" / "server" / key_of(self.palace)

    def publish(self, *homes: Path) -> None:
        self.hub.publish(21, TOOLS, None, map(str, homes))

    def record(self, home: Path | None = None) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder(home) / RECORD).read_bytes())
        return told


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_record_and_token_lie_in_the_private_folder(place: Place) -> None:
    token = place.hub.token()
    place.publish()
    assert place.record()["pid"] == os.getpid()
    assert (place.folder() / "token").read_text().strip() == token
    assert place.folder().is_symlink()
    real = place.folder().resolve()
    assert real.is_relative_to(Path(place.env[VARIABLE]).resolve())
    assert [stat.S_IMODE(path.stat().st_mode) for path in (real, real / "token", real / RECORD)] == [
        0o700,
        0o600,
        0o600,
    ]
    before = (real / RECORD).stat().st_ino
    place.publish()
    assert (real / RECORD).stat().st_ino == before  # nothing to say anew


def test_in_the_homes_of_agents_too(place: Place, tmp_path: Path) -> None:
    other, closed = tmp_path / "other", tmp_path / "closed"
    other.mkdir()
    closed.mkdir()
    closed.chmod(0o777)
    place.publish(other, closed, Path("relative"))
    assert place.record(other) == place.record()
    assert not (closed / ".mempalace").exists()  # others could lead it elsewhere
    for number in range(MOST_HOMES + 3):
        (tmp_path / str(number)).mkdir()
    place.publish(*(tmp_path / str(number) for number in range(MOST_HOMES + 3)))
    assert not place.folder(tmp_path / str(MOST_HOMES)).exists()


def test_a_home_is_remembered_until_it_has_the_record_and_then_makes_room(place: Place, tmp_path: Path) -> None:
    homes = [tmp_path / str(number) for number in range(MOST_HOMES + 3)]
    for home in homes:
        home.mkdir()
    place.hub.publish(21, None, None, [str(homes[0])])  # its session ends before there is an engine
    for home in homes[1:]:
        place.publish(home)
    assert all(place.record(home)["port"] == 21 for home in homes)
    place.folder().unlink()
    place.publish()
    assert place.record()["port"] == 21, "the broker's own home is looked after all the time"


def test_one_home_does_not_cost_another_its_record(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    with pytest.raises(NotADirectoryError):
        place.publish(tmp_path / "file", tmp_path / "gone", tmp_path / "other")
    assert place.record(tmp_path / "other") == place.record()


def test_homes_that_are_gone_are_no_fault(place: Place, tmp_path: Path) -> None:
    place.publish(tmp_path / "gone")
    assert place.record()["port"] == 21


@pytest.mark.parametrize("pid", [1 << 31, 1 << 64, -1, "7", None])
def test_a_pid_that_nobody_can_have_makes_room(place: Place, pid: object) -> None:
    place.folder().mkdir(parents=True)
    (place.folder() / RECORD).write_text(json.dumps({"pid": pid}))
    place.publish()
    assert place.record()["pid"] == os.getpid()


def test_what_was_there_makes_room(place: Place) -> None:
    old = place.folder()
    old.mkdir(parents=True)
    (old / "token").write_text("theirs")
    (old / RECORD).write_text('{"pid": 4194304}')  # has ended
    place.publish()
    assert place.record()["pid"] == os.getpid()
    (aside,) = old.parent.glob("*.before-broker-*")
    assert (aside / "token").read_text() == "theirs"
    assert place.hub.token() != "theirs"  # containers may have seen it


def test_a_link_to_elsewhere_is_replaced(place: Place, tmp_path: Path) -> None:
    place.folder().parent.mkdir(parents=True)
    place.folder().symlink_to(tmp_path / "gone")
    place.publish()
    assert place.record()["port"] == 21


def test_mempalaces_own_hub_at_work_is_left_alone(place: Place) -> None:
    old = place.folder()
    old.mkdir(parents=True)
    (old / RECORD).write_text(json.dumps({"pid": os.getppid()}))
    with pytest.raises(AnotherHub, match=f"pid {os.getppid()}"):
        place.publish()
    assert place.record()["pid"] == os.getppid()


def test_a_link_in_place_of_the_shared_folder_is_not_followed(place: Place, tmp_path: Path) -> None:
    (place.home / ".mempalace").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (place.home / ".mempalace" / "server").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="server"):
        place.publish()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_without_a_tool_to_mine_there_is_no_record(place: Place) -> None:
    place.hub.publish(21, None, None, [])
    place.hub.publish(21, [{"name": "mempalace_search"}], None, [])
    assert not place.folder().exists()
    place.hub.withdraw()


def test_withdrawn_while_it_is_ours(place: Place) -> None:
    place.publish()
    real = place.folder().resolve()
    place.hub.withdraw()
    assert not (real / RECORD).exists()
    (real / RECORD).write_text('{"pid": 1}')
    place.hub.withdraw()
    assert (real / RECORD).exists()


def test_the_record_of_a_daemon_beside_it_and_of_whichever_process_stays(place: Place) -> None:
    place.hub.publish(21, TOOLS, None, [], 4242)
    daemon = place.home / ".mempalace" / "daemon" / key_of(place.palace)
    assert daemon.resolve() == place.folder().resolve()
    told = json.loads((daemon / "endpoint.json").read_bytes())
    assert told == {"host": "127.0.0.1", "port": 21, "pid": 4242, "palace_path": place.palace}
    assert (daemon / "pid").read_text() == "4242\n"
    assert place.record()["pid"] == 4242
    place.hub.withdraw()
    assert sorted(path.name for path in daemon.iterdir()) == ["token"] * (daemon / "token").exists()
