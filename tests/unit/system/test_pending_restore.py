"""The renames of a restore are finished whatever they were interrupted at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.system import pending_restore
from mempalace_broker.system.pending_restore import Move, finish_restore, write_moves
from mempalace_broker.system.private import VARIABLE, PrivateFile, state_folder


class Killed(BaseException):
    """As kill -9: nothing after it runs."""


def world(tmp_path: Path) -> tuple[PrivateFile, list[Move]]:
    palace, staging, aside = tmp_path / "palace", tmp_path / "staging", tmp_path / "aside"
    for folder in (palace / "index", staging / "index"):
        folder.mkdir(parents=True)
    for folder, word in ((palace, "old"), (staging, "new")):
        (folder / "db").write_text(word)
        (folder / "index" / "data").write_text(word)
    (palace / "gone").write_text("old")
    (staging / "added").write_text("new")
    names = ("db", "index", "added")
    moves = [Move(str(staging / name), str(palace / name), str(aside / name)) for name in names]
    moves.append(Move("", str(palace / "gone"), str(aside / "gone")))
    marker = state_folder(str(palace), {VARIABLE: str(tmp_path / "private")}).file("restore.json")
    write_moves(marker, moves, [str(staging)])
    return marker, moves


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kills_at", range(8))
def test_killed_at_any_rename_the_next_one_finishes_it(
    tmp_path: Path, kills_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, _ = world(tmp_path)
    left = kills_at
    rename = os.rename

    def counted(old: str, new: str, **folders: int) -> None:
        nonlocal left
        if left == 0:
            left -= 1
            raise Killed
        left -= 1
        rename(old, new, **folders)

    monkeypatch.setattr("os.rename", counted)
    try:
        finish_restore(marker)
    except Killed:
        assert Path(marker.path).exists()
        assert finish_restore(marker) == 4
    assert tree(tmp_path / "palace") == {"db": "new", "index/data": "new", "added": "new"}
    assert tree(tmp_path / "aside") == {"db": "old", "index/data": "old", "gone": "old"}
    assert not (tmp_path / "staging").exists()
    assert finish_restore(marker) == 0


def test_a_list_that_could_not_be_read_again_is_not_decided_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest can put so many files into the palace: nobody could open it until somebody removed the list."""
    marker, moves = world(tmp_path)
    before = marker.read(1 << 20)
    monkeypatch.setattr(pending_restore, "_LIMIT", len(before or b""))
    with pytest.raises(OSError, match="5 files are too many"):
        write_moves(marker, [*moves, moves[0]], [])
    assert marker.read(1 << 20) == before
    assert finish_restore(marker) == len(moves)


@pytest.mark.parametrize("swapped", ["palace", "staging"])
def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path, swapped: str) -> None:
    """A guest can put one there: the names of another folder of the user's would be moved to where it can read them."""
    marker, _ = world(tmp_path)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("db", "gone"):
        (secrets / name).write_text("secret")
    (tmp_path / swapped).rename(tmp_path / "away")
    (tmp_path / swapped).symlink_to(secrets)
    with pytest.raises(StateRootError, match="interrupted"):
        finish_restore(marker)
    assert tree(secrets) == {"db": "secret", "gone": "secret"}
    (tmp_path / swapped).unlink()
    (tmp_path / "away").rename(tmp_path / swapped)
    assert finish_restore(marker) == 4
    assert tree(tmp_path / "palace") == {"db": "new", "index/data": "new", "added": "new"}


def test_a_link_in_place_of_the_folder_for_the_old_files_goes_and_is_not_followed(tmp_path: Path) -> None:
    marker, _ = world(tmp_path)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "db").write_text("secret")
    (tmp_path / "aside").symlink_to(secrets)
    assert finish_restore(marker) == 4
    assert tree(secrets) == {"db": "secret"}
    assert tree(tmp_path / "palace") == {"db": "new", "index/data": "new", "added": "new"}
    assert tree(tmp_path / "aside") == {"db": "old", "index/data": "old", "gone": "old"}


def test_a_list_that_makes_no_sense_stays_and_is_named(tmp_path: Path) -> None:
    marker, _ = world(tmp_path)
    Path(marker.path).write_text('{"moves": 7}')
    with pytest.raises(StateRootError, match="interrupted"):
        finish_restore(marker)
    assert tree(tmp_path / "palace")["db"] == "old"
