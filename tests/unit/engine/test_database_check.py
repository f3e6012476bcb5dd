"""The check of the database beside the imports: only a sound, settled, unchanged database counts as sound."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from mempalace_broker.engine import database_check
from mempalace_broker.engine.database_check import DatabaseCheck


@pytest.fixture
def palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A palace with a settled database, and a mempalace that checks it."""
    package = tmp_path / "site" / "mempalace"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "repair.py").write_text("def sqlite_integrity_status(palace_path): ...")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delenv("MEMPALACE_STARTUP_INTEGRITY_MAX_MB", raising=False)
    palace = tmp_path / "palace"
    palace.mkdir()
    with contextlib.closing(sqlite3.connect(palace / "chroma.sqlite3")) as database, database:
        database.execute("CREATE TABLE note (text)")
        database.executemany("INSERT INTO note VALUES (?)", [(f"note {n}" * 50,) for n in range(200)])
    age(palace, 10)
    return palace


def age(palace: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(palace / "chroma.sqlite3", (then, then))


def is_sound(palace: Path) -> bool:
    check = DatabaseCheck(str(palace))
    check.start()
    return check.is_sound(str(palace / "chroma.sqlite3"))


def test_a_sound_database_is_found_sound(palace: Path) -> None:
    assert is_sound(palace)


def test_a_damaged_one_is_left_to_mempalace(palace: Path) -> None:
    path = palace / "chroma.sqlite3"
    data = bytearray(path.read_bytes())
    data[-8192:-4096] = bytes(4096)
    path.write_bytes(data)
    age(palace, 10)
    assert not is_sound(palace)


def test_what_is_no_database_is_left_to_mempalace(palace: Path) -> None:
    (palace / "chroma.sqlite3").write_bytes(b"no database" * 1000)
    age(palace, 10)
    assert not is_sound(palace)


def test_one_that_was_changed_a_moment_ago_may_change_unseen(palace: Path) -> None:
    age(palace, -5)  # as if the check began at once, however busy the machine is
    assert not is_sound(palace)


@pytest.mark.parametrize("name", ["chroma.sqlite3", "chroma.sqlite3-wal"])
def test_a_change_after_the_check_counts(palace: Path, name: str) -> None:
    check = DatabaseCheck(str(palace))
    check.start()
    assert check.is_sound(str(palace / "chroma.sqlite3"))
    with (palace / name).open("ab") as file:
        file.write(b"more")
    assert not check.is_sound(str(palace / "chroma.sqlite3"))


def test_another_file_than_the_checked_one_is_not_sound(palace: Path, tmp_path: Path) -> None:
    check = DatabaseCheck(str(palace))
    check.start()
    other = tmp_path / "other.sqlite3"
    other.write_bytes((palace / "chroma.sqlite3").read_bytes())
    assert not check.is_sound(str(other))


def test_nothing_is_checked_where_mempalace_would_not(
    palace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MEMPALACE_STARTUP_INTEGRITY_MAX_MB", "1")
        assert not is_sound(palace)
    with monkeypatch.context() as patch:
        patch.setattr(database_check, "_MOST_BYTES", 10)
        assert not is_sound(palace)
    (tmp_path / "site" / "mempalace" / "repair.py").write_text("")
    assert not is_sound(palace)


def test_no_palace_and_a_link_are_not_looked_at(palace: Path, tmp_path: Path) -> None:
    assert not is_sound(tmp_path / "none")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "chroma.sqlite3").symlink_to(palace / "chroma.sqlite3")
    assert not is_sound(linked)
