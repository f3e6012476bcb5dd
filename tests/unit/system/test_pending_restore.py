"""The renames of a restore are finished whatever they were interrupted at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
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


@pytest.mark.parametrize("name", ["palace", "staging", "aside"])
def test_a_folder_that_became_a_link_leads_nowhere(tmp_path: Path, name: str) -> None:
    marker, _ = world(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "db").write_text("mine")
    if (tmp_path / name).exists():
        (tmp_path / name).rename(tmp_path / "moved")
    (tmp_path / name).symlink_to(home)
    with pytest.raises(StateRootError, match="can't be finished"):
        finish_restore(marker)
    assert tree(home) == {"db": "mine"}


def test_a_list_that_makes_no_sense_stays_and_is_named(tmp_path: Path) -> None:
    marker, _ = world(tmp_path)
    Path(marker.path).write_text('{"moves": 7}')
    with pytest.raises(StateRootError, match="interrupted"):
        finish_restore(marker)
    assert tree(tmp_path / "palace")["db"] == "old"
