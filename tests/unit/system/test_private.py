"""The user's own folders: where they lie, what is believed there, and what happens without a home."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from mempalace_broker.system import private
from mempalace_broker.system.private import VARIABLE, PrivateFolder, palace_key, settings_folder, state_folder
from mempalace_broker.system.private import private_home as real_home
from mempalace_broker.system.shared_files import Untrusted

STRANGER = 54321


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the password file."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(private, "private_home", lambda: str(home))
    return home


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_home_is_the_password_files_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert real_home() == pwd.getpwuid(os.geteuid()).pw_dir


def test_a_user_without_an_entry_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    monkeypatch.setattr(private, "private_home", real_home)
    assert real_home() == ""
    folder = settings_folder({})
    assert (folder.path, folder.file("x").path) == ("", "")
    assert folder.file("config.toml").read(10) is None
    assert "no home directory" in folder.make()
    with pytest.raises(OSError, match="no home directory"):
        folder.file("x").write(b"")


def test_each_palace_has_a_folder_of_its_own(home: Path) -> None:
    key = palace_key("/p")
    assert len(key) == 20
    assert int(key, 16)
    assert key != palace_key("/q")
    assert settings_folder({}).path == str(home / ".config/mempalace-broker")
    assert state_folder("/p", {}).path == str(home / ".local/state/mempalace-broker" / key)
    assert palace_key(os.fsdecode(b"/p\xff"))


def test_one_variable_names_both(tmp_path: Path) -> None:
    env = {VARIABLE: str(tmp_path / "mine"), "HOME": "/elsewhere", "XDG_STATE_HOME": "/elsewhere"}
    assert settings_folder(env).path == str(tmp_path / "mine")
    folder = state_folder("/p", env)
    assert folder.path == str(tmp_path / "mine/state" / palace_key("/p"))
    folder.file("a").write(b"x")
    assert mode_of(tmp_path / "mine") == 0o700
    assert settings_folder({VARIABLE: "relative"}).path == settings_folder({}).path


@pytest.mark.parametrize("umask", [0, 0o777])
def test_folders_are_private_whatever_the_umask(home: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert state_folder("/p", {}).make() == ""
    finally:
        os.umask(before)
    for path in (".local", ".local/state", ".local/state/mempalace-broker"):
        assert mode_of(home / path) == 0o700, path
    assert mode_of(Path(state_folder("/p", {}).path)) == 0o700


def test_what_was_written_is_read_bounded(home: Path) -> None:
    folder = state_folder("/p", {})
    assert folder.file("note").read(10) is None
    folder.file("note").write(b"x" * 50)
    assert folder.file("note").read(10) == b"x" * 11
    assert mode_of(Path(folder.file("note").path)) == 0o600
    assert home


def test_a_link_of_a_dotfile_manager_is_followed(home: Path) -> None:
    folder = settings_folder({})
    folder.make()
    (home / "dotfiles.toml").write_bytes(b"[broker]")
    os.symlink(home / "dotfiles.toml", folder.file("config.toml").path)
    assert folder.file("config.toml").read(100) == b"[broker]"


def test_a_link_into_a_read_only_store_is_followed(home: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o1775)
    (store / "abc-config.toml").write_bytes(b"[broker]")
    (store / "abc-config.toml").chmod(0o444)
    (home / ".config").symlink_to(tmp_path / "dotfiles")
    (tmp_path / "dotfiles" / "mempalace-broker").mkdir(parents=True)
    (tmp_path / "dotfiles" / "mempalace-broker" / "config.toml").symlink_to(store / "abc-config.toml")
    assert settings_folder({}).file("config.toml").read(100) == b"[broker]"


def test_a_link_to_where_others_can_swap_the_target_is_refused(home: Path, tmp_path: Path) -> None:
    folder = settings_folder({})
    folder.make()
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "x").write_bytes(b"[broker]")
    (tmp_path / "drop").chmod(0o777)
    os.symlink(tmp_path / "drop" / "x", folder.file("config.toml").path)
    with pytest.raises(Untrusted, match=r"leads to .*/drop, which can be written by other users"):
        folder.file("config.toml").read(100)


def test_a_link_to_nothing_is_an_error_and_not_an_absent_file(home: Path) -> None:
    folder = settings_folder({})
    folder.make()
    os.symlink(home / "collected", folder.file("config.toml").path)
    with pytest.raises(OSError, match="a link to a file that does not exist"):
        folder.file("config.toml").read(100)


@pytest.mark.parametrize("path", [".", ".config", ".config/mempalace-broker", ".config/mempalace-broker/config.toml"])
def test_what_others_can_write_is_refused_with_its_chmod(home: Path, path: str) -> None:
    folder = settings_folder({})
    folder.file("config.toml").write(b"x")
    (home / path).chmod(0o777)
    with pytest.raises(Untrusted, match=r"can be written by other users .*chmod go-w"):
        folder.file("config.toml").read(10)


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_only_a_file_is_read(home: Path, kind: str) -> None:
    folder = settings_folder({})
    folder.make()
    path = Path(folder.file("config.toml").path)
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(Untrusted, match="not a regular file"):
        folder.file("config.toml").read(10)
    assert home


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_home_or_file_of_another_user_counts_for_nothing(home: Path) -> None:
    folder = settings_folder({})
    folder.file("config.toml").write(b"x")
    os.chown(folder.file("config.toml").path, STRANGER, -1)
    with pytest.raises(Untrusted, match="belongs to another user"):
        folder.file("config.toml").read(10)
    os.chown(home, STRANGER, -1)
    assert folder.file("config.toml").read(10) is None
    assert "belongs to another user" in folder.make()


def test_a_home_that_is_missing_or_a_file_is_told(tmp_path: Path) -> None:
    assert "does not exist" in PrivateFolder(str(tmp_path / "none"), ("a",)).make()
    (tmp_path / "file").write_bytes(b"")
    assert "not a folder" in PrivateFolder(str(tmp_path / "file"), ("a",)).make()
    assert "not a folder" in PrivateFolder(str(tmp_path), ("file",)).make()


def test_a_home_that_is_read_only_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, mode: int = 0) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "mkdir", refused)
    assert state_folder("/p", {}).make() == f"{home}/.local: Read-only file system"


def test_a_group_of_ones_own_is_nobody_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings_folder({})
    folder.file("config.toml").write(b"x")
    (home / ".config").chmod(0o770)
    import grp

    name = pwd.getpwuid(os.geteuid()).pw_name
    for members, name_of_group, believed in (([], name, True), (["bob"], name, False), ([], "staff", False)):
        group = SimpleNamespace(gr_name=name_of_group, gr_mem=members)
        monkeypatch.setattr(grp, "getgrgid", lambda _gid, group=group: group)
        assert (folder.problem() == "") is believed
