"""Which palace and which files: by name only, the same for every client."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import StateRootError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system import paths, private
from mempalace_broker.system.paths import (
    StateFiles,
    expand,
    home_of,
    state_files,
    state_root,
)
from mempalace_broker.system.private import palace_key
from mempalace_broker.system.unix_socket import MAX_PATH


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory without symlinks in its own path."""
    path = Path(os.path.realpath(tmp_path)) / "home"
    path.mkdir()
    return path


class TestStateRoot:
    @pytest.mark.parametrize(
        ("palace", "root"),
        [
            ("/home/me/.mempalace/palace", "/home/me/.mempalace"),
            ("/srv/team", "/srv/team"),
            ("/palace", "/palace"),
            ("/palace/palace", "/palace"),
            ("/srv/palaces", "/srv/palaces"),
        ],
    )
    def test_by_name_only(self, palace: str, root: str) -> None:
        assert state_root(palace, {}) == root
        assert state_root(palace, {"MEMPALACE_PATH": " "}) == root

    def test_named_explicitly(self, home: Path) -> None:
        (home / "link").symlink_to(".")
        env = {"MEMPALACE_PATH": "~/link/r", "HOME": str(home)}
        assert state_root("/srv/team", env) == f"{home}/r"

    def test_all_files(self) -> None:
        files = state_files(PalaceIdentity("/r/palace", "/g", "flag"), {})
        assert {files.record, files.start_lock, files.toml, files.journal} == {
            "/r/broker.json",
            "/r/broker.start.lock",
            "/r/broker.toml",
            "/r/broker.journal",
        }
        assert (files.owner_lock, files.engine_lock) == ("/r/palace/broker.lock", "/r/palace/engine.lock")
        assert files.socket == "/r/broker.sock"

    def test_what_others_must_not_write_lies_in_a_private_folder(self) -> None:
        env = {"MEMPALACE_BROKER_PRIVATE": "/mine"}
        files = state_files(PalaceIdentity("/r/palace", "/g", "flag"), env)
        folder = f"/mine/state/{palace_key('/r/palace')}"
        assert files.log == f"{folder}/broker.log"
        assert [file.path for file in (files.exit, files.answers, files.start_failure, files.backup)] == [
            f"{folder}/broker-exit.json",
            f"{folder}/broker-answers.json",
            f"{folder}/broker-start-failure.json",
            f"{folder}/broker-backup.json",
        ]
        assert files.direct(lambda _: True).log.startswith(f"{folder}/broker-direct-")

    def test_the_locks_stay_with_the_palace_wherever_the_root_is(self) -> None:
        files = state_files(PalaceIdentity("/p", "/g", "flag"), {"MEMPALACE_PATH": "/elsewhere"})
        assert files.record == "/elsewhere/broker.json"
        assert files.owner_lock == "/p/broker.lock"

    def test_on_linux_the_socket_is_in_the_root_however_long_its_path_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paths, "LINUX", True)
        root = "/" + "a" * 300
        assert StateFiles(root, f"{root}/palace").socket == f"{root}/broker.sock"

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300))
    def test_elsewhere_it_is_in_a_private_folder_where_its_path_is_too_long(self, name: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "LINUX", False)
            files = StateFiles(f"/r/{name}", "/p", env={"MEMPALACE_BROKER_PRIVATE": "/mine"})
        assert len(os.fsencode(files.socket)) <= MAX_PATH
        assert files.socket in (f"/r/{name}/broker.sock", f"/mine/state/{palace_key('/p')}/broker.sock")


class TestPrepare:
    def test_makes_private_folders(self, home: Path) -> None:
        files = StateFiles(f"{home}/a/root", f"{home}/a/root/palace")
        files.prepare()
        files.prepare()
        assert os.stat(files.root).st_mode & 0o777 == 0o700
        assert os.stat(files.palace).st_mode & 0o777 == 0o700

    def test_leaves_existing_ones_as_they_are(self, home: Path) -> None:
        (home / "p").mkdir(mode=0o755)
        StateFiles(f"{home}/p", f"{home}/p").prepare()
        assert os.stat(home / "p").st_mode & 0o777 == 0o755

    def test_a_file_in_the_way_is_said(self, home: Path) -> None:
        (home / "file").touch()
        with pytest.raises(StateRootError, match=r"cannot create .*/file"):
            StateFiles(f"{home}/file", f"{home}/file/palace").prepare()

    def test_the_sockets_own_folder_must_be_ours_alone(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        monkeypatch.setattr(paths, "LINUX", False)
        mine = Path(tempfile.mkdtemp())  # tmp_path is too long here
        request.addfinalizer(lambda: shutil.rmtree(mine))
        root = home / ("r" * 120)
        files = StateFiles(str(root), str(root), env={"MEMPALACE_BROKER_PRIVATE": str(mine)})
        folder = Path(files.socket).parent
        assert folder.is_relative_to(mine)
        files.check_socket_folder()  # nothing there, nobody to fear
        files.prepare()
        assert os.stat(folder).st_mode & 0o777 == 0o700
        folder.chmod(0o777)
        with pytest.raises(StateRootError, match="can be written by other users"):
            files.check_socket_folder()
        with pytest.raises(StateRootError, match="can be written by other users"):
            files.prepare()


def test_expand_goes_by_the_home_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/wrong")
    assert expand("~", "/h") == "/h"
    assert expand("~/x", "/h/") == "/h/x"
    assert expand("~/x", "/") == "/x"
    assert expand("~", "/") == "/"
    assert expand("~root", "/h") == os.path.expanduser("~root")
    assert expand("/~/x", "/h") == "/~/x"


def test_home_without_a_variable() -> None:
    assert home_of({"HOME": "/h"}) == "/h"
    assert os.path.isabs(home_of({}))


def test_a_broker_from_beyond_shares_the_locks_and_the_settings_and_no_file_that_it_writes(tmp_path: Path) -> None:
    own = StateFiles(str(tmp_path), str(tmp_path / "palace"))
    direct = own.direct(lambda _: True)
    names = {name for name in vars(own) if not name.startswith("_")}
    same = {name for name in names if getattr(own, name) == getattr(direct, name)}
    assert same == {"root", "palace", "owner_lock", "engine_lock", "leases", "toml"}
    for name in ("exit", "answers", "start_failure"):
        assert getattr(own, name).path != getattr(direct, name).path
    assert own.log != direct.log


@pytest.mark.parametrize("local", [True, False, None])
def test_the_socket_of_a_direct_broker_is_never_on_a_share(tmp_path: Path, local: bool | None) -> None:
    own = StateFiles(str(tmp_path), str(tmp_path / "palace"), env={"MEMPALACE_BROKER_PRIVATE": str(tmp_path / "mine")})
    direct = own.direct(lambda _: local)
    base = f"{tmp_path}/mine/state" if local else f"/tmp/mempalace-broker-{os.geteuid()}"
    assert direct.socket.startswith(f"{base}/{palace_key(own.palace)}/broker-direct-")
    direct.check_socket_folder()  # nobody has taken that name


def test_without_a_home_it_is_in_a_temporary_folder_that_only_its_user_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "private_home", lambda: "")
    monkeypatch.setattr(private, "_TMP", str(tmp_path))
    direct = StateFiles(str(tmp_path), str(tmp_path / "palace")).direct(lambda _: True)
    direct.prepare()
    folder = Path(direct.socket).parent
    assert folder.is_relative_to(tmp_path)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    folder.parent.chmod(0o777)
    with pytest.raises(StateRootError, match="can be written by other users"):
        direct.check_socket_folder()
