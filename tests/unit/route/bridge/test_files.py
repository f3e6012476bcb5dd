"""Where a bridge's files are: in a folder that no other user can take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.route.bridge import files as module
from mempalace_broker.route.bridge.files import BridgeFiles
from mempalace_broker.route.bridge.wire import SshTarget
from mempalace_broker.system import private


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in the password file, a folder for runtime folders, and a /tmp."""
    monkeypatch.setattr(module, "_RUNTIME", str(tmp_path / "run"))
    monkeypatch.setattr(module, "_TMP", str(tmp_path / "tmp"))
    monkeypatch.setattr(module, "_LONGEST", 200)
    monkeypatch.setattr(private, "private_home", lambda: str(tmp_path / "home"))
    for name in ("run", "tmp", "home"):
        (tmp_path / name).mkdir(mode=0o755)
    return tmp_path / "home"


def files(**env: str) -> BridgeFiles:
    return BridgeFiles(SshTarget("host"), env)


@pytest.mark.parametrize(("mode", "used"), [(0o700, True), (0o755, False), (0o770, False), (None, False)])
def test_the_runtime_folder_is_used_where_it_is_ours_alone(home: Path, mode: int | None, used: bool) -> None:
    runtime = home.parent / "run" / str(os.getuid())
    if mode is not None:
        runtime.mkdir()
        runtime.chmod(mode)
    found = files()
    base = runtime / "mempalace-broker" if used else home / ".local/state/mempalace-broker/ssh"
    assert os.path.dirname(found.folder) == str(base)
    assert not found.check()
    found.prepare()
    assert found.check()
    assert os.stat(found.folder).st_mode & 0o777 == 0o700
    assert files().folder == found.folder, "the next client finds the same one"


def test_a_link_in_place_of_the_runtime_folder_is_not_used(home: Path) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home.parent / "run" / str(os.getuid())).symlink_to(home / "elsewhere")
    assert files().folder.startswith(f"{home}/.local/")


def test_no_shared_tmp_where_the_home_will_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp = f"{home.parent}/tmp/"
    monkeypatch.setattr(module, "_LONGEST", 40)
    assert files().folder.startswith(tmp), "too long for sockets"
    monkeypatch.setattr(module, "_LONGEST", 200)
    monkeypatch.setattr("mempalace_broker.locality.mounts.is_local", lambda _: False)
    assert files().folder.startswith(tmp), "another kernel shares the home"
    monkeypatch.setattr("mempalace_broker.locality.mounts.is_local", lambda _: None)
    assert files().folder.startswith(str(home))
    home.chmod(0o777)
    assert files().folder.startswith(tmp), "others can write the home"


def test_who_squats_the_name_in_tmp_locks_nobody_out(home: Path) -> None:
    home.rmdir()
    squatted = home.parent / "tmp" / f"mempalace-broker-{os.getuid()}"
    squatted.mkdir(mode=0o777)
    squatted.chmod(0o777)
    with pytest.raises(StateRootError) as refused:
        files().check()
    assert "MEMPALACE_BROKER_PRIVATE" in refused.value.hint
    found = files(MEMPALACE_BROKER_PRIVATE=str(home.parent / "mine"))
    found.prepare()
    assert found.check()
    assert found.folder.startswith(f"{home.parent}/mine/ssh/")
