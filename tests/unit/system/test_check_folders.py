"""A root or palace that other users can write to is refused, with the chmod that mends it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.system.file_trust import check_folders
from mempalace_broker.system.paths import StateFiles


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    made = StateFiles(f"{tmp_path}/root", f"{tmp_path}/root/palace")
    made.prepare()
    return [made.root, made.palace]


@pytest.mark.parametrize("which", [0, 1], ids=["root", "palace"])
@pytest.mark.parametrize("mode", [0o702, 0o777, 0o1777])
def test_others_can_write(folders: list[str], which: int, mode: int) -> None:
    check_folders(folders, lambda path: True)
    folder = folders[which]
    os.chmod(folder, mode)
    with pytest.raises(StateRootError, match="other users can write") as refused:
        check_folders(folders, lambda path: True)
    assert (f"chmod go-w {folder}" in refused.value.hint) == (mode != 0o1777)
    os.chmod(folder, mode & ~0o1022)
    check_folders(folders, lambda path: True)


def test_what_is_missing_passes(tmp_path: Path) -> None:
    check_folders([f"{tmp_path}/root", f"{tmp_path}/root/palace"], lambda path: True)


@pytest.mark.parametrize(("local", "refused"), [(True, True), (None, True), (False, False)])
def test_modes_of_another_kernels_files_say_nothing(folders: list[str], local: bool | None, refused: bool) -> None:
    os.chmod(folders[0], 0o777)
    if refused:
        with pytest.raises(StateRootError):
            check_folders(folders, lambda path: local)
    else:
        check_folders(folders, lambda path: local)
