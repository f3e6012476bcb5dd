"""Root in another user's folder: what is made there belongs to that user, and nothing else changes hands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.system.shared_files import SharedFolder, make_folders

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
OWNER = 54321


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "owned"
    path.mkdir(mode=0o700)
    os.chown(path, OWNER, OWNER)
    return path


def owner(path: Path) -> int:
    return path.lstat().st_uid


def test_whatever_we_make_is_the_owners(folder: Path) -> None:
    with SharedFolder.open(str(folder)) as opened:
        opened.create("made")
        opened.replace("record", b"x")
        os.close(opened.open_in_place("lock", create=True))
        opened.folder("below", make=True).close()
        opened.sync()
    make_folders(str(folder / "a" / "b"))
    assert {owner(path) for path in folder.rglob("*")} == {OWNER}
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*")} == {0}


def test_what_an_earlier_session_of_root_left_is_given_back(folder: Path) -> None:
    (folder / "lock").touch()
    with SharedFolder.open(str(folder)) as opened:
        os.close(opened.open_in_place("lock", create=True))
    assert owner(folder / "lock") == OWNER


def test_nothing_else_changes_hands(folder: Path) -> None:
    root_file = folder.parent / "of root"
    root_file.touch()
    os.link(root_file, folder / "link")
    (folder / "symlink").symlink_to(root_file)
    os.mkfifo(folder / "fifo")
    with SharedFolder.open(str(folder)) as opened:
        for name in ("link", "symlink", "fifo"):
            assert opened.give_away(name) is not None
            assert owner(folder / name) == 0, name
        assert opened.give_away("absent") is None
    assert owner(root_file) == 0
    with SharedFolder.open(str(folder.parent)) as opened:
        opened.create("ours")
    assert owner(folder.parent / "ours") == 0, "a folder of root"
