"""Where new files of a palace are staged, and what happens to what killed runs have left."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.cli import staging
from mempalace_broker.cli.staging import staging_folder
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system.paths import Context
from mempalace_broker.system.private import VARIABLE
from mempalace_broker.system.shared_files import SharedFolder


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "palace").mkdir()
    return Context(PalaceIdentity(str(tmp_path / "palace"), "", "flag"), {VARIABLE: str(tmp_path / "private")})


def private(context: Context, name: str) -> Path:
    return Path(context.files.private.path, name)


def left(context: Context, name: str) -> Path:
    """A folder in the private one, as a killed run leaves it."""
    assert context.files.private.make() == ""
    path = private(context, name)
    path.mkdir()
    (path / "file").write_text(name)
    return path


@pytest.mark.parametrize("lost", [False, True])
def test_it_is_in_the_private_folder_and_nothing_is_left_in_the_palace(context: Context, lost: bool) -> None:
    palace = Path(context.identity.path)
    if lost:
        palace.rmdir()
    with staging_folder(context, "restore-", "1") as path:
        assert Path(path) == private(context, "restore-1")
        assert list(Path(path).iterdir()) == []
    assert palace.exists() is not lost
    assert {entry.name for entry in palace.parent.iterdir()} <= {"palace", "private"}


@pytest.mark.parametrize("goes_on", [False, True])
def test_it_is_beside_the_palace_where_no_rename_leads_there(
    context: Context, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    def elsewhere(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    beside = Path(f"{context.identity.path}.moving-to-chroma")
    beside.mkdir()
    (beside / "file").touch()
    monkeypatch.setattr(SharedFolder, "rename", elsewhere)
    with staging_folder(context, "moving-to-", "chroma", goes_on=goes_on) as path:
        assert Path(path) == beside
        assert (beside / "file").exists() is goes_on
    assert not private(context, "moving-to-chroma").exists()


def test_a_guest_can_not_have_it_made_beside_the_palace(context: Context, tmp_path: Path) -> None:
    palace = tmp_path / "palace"
    palace.rmdir()
    palace.symlink_to("/proc")
    with pytest.raises(OSError, match="palace"), staging_folder(context, "restore-", "1"):
        raise AssertionError
    assert not list(tmp_path.glob("palace.*"))
    palace.unlink()
    palace.mkdir()
    with pytest.raises(FileNotFoundError), staging_folder(context, "restore-", "1", [str(tmp_path / "graph")]):
        raise AssertionError
    assert not list(tmp_path.glob("palace.*"))
    assert not private(context, "restore-1").exists()


def test_the_next_run_removes_what_killed_ones_have_left(context: Context) -> None:
    old, others, kept = (left(context, name) for name in ("moving-to-chroma", "restore-1", "moving-to-pgvector"))
    (kept / staging._PROBE).touch()
    with staging_folder(context, "moving-to-", "pgvector", goes_on=True) as path:
        assert Path(path) == kept
        assert (kept / "file").exists()
    assert others.exists()
    assert not old.exists()
    with staging_folder(context, "moving-to-", "pgvector") as path:
        assert list(Path(path).iterdir()) == []


def test_what_another_run_or_a_list_of_renames_needs_stays(context: Context) -> None:
    with staging_folder(context, "restore-", "1") as one, staging_folder(context, "restore-", "2"):
        assert Path(one).is_dir()
    context.files.restore.write(b"{}")
    with staging_folder(context, "restore-", "3"):
        assert Path(one).is_dir()
    Path(context.files.restore.path).unlink()
    with staging_folder(context, "restore-", "4"):
        assert [path.name for path in private(context, "").glob("restore-*")] == ["restore-4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("which", ["palace", "."])
def test_a_folder_that_can_not_be_written_is_named(context: Context, tmp_path: Path, which: str) -> None:
    folder = (tmp_path / which).resolve()
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError) as refused, staging_folder(context, "restore-", "1"):
            raise AssertionError
    finally:
        folder.chmod(0o700)
    assert refused.value.filename == str(folder)
    assert not private(context, "restore-1").exists()


@pytest.mark.parametrize("which", ["palace", "parent"])
def test_what_refuses_is_named(context: Context, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    palace = Path(context.identity.path)
    folder = palace if which == "palace" else palace.parent

    def refuse(self: SharedFolder, *_: object, **more: Any) -> None:
        if Path(more["into"].path if "into" in more else self.path) == folder:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), ".broker-probe")

    monkeypatch.setattr(SharedFolder, "rename" if which == "palace" else "create", refuse)
    with pytest.raises(OSError, match="Read-only") as refused, staging_folder(context, "restore-", "1"):
        raise AssertionError
    assert refused.value.filename == str(folder)
