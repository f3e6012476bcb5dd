"""The journal on disk: whole entries only, whenever a kill came; bounded; its failure is told once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.engine.journal_file import JournalFile
from mempalace_broker.protocol import journal
from tests.planted import plant

entries = st.lists(
    st.tuples(st.sampled_from(["k1", "k2", "s.1.2"]), st.none() | st.binary(max_size=40)), max_size=8
).map(lambda items: [journal.started(k) if r is None else journal.ended(k, r) for k, r in items])


@given(entries, st.integers(0, 400))
def test_a_journal_cut_anywhere_keeps_its_whole_entries(items: list[bytes], cut: int) -> None:
    data = b"".join(items)
    kept = journal.whole_length(data[:cut])
    whole = 0
    for item in items:
        if whole + len(item) > min(cut, len(data)):
            break
        whole += len(item)
    assert kept == whole


@given(entries, st.integers(0, 400))
def test_what_is_appended_behind_a_cut_can_be_read(items: list[bytes], cut: int) -> None:
    data = b"".join(items)[:cut]
    done, begun = journal.parse(data[: journal.whole_length(data)] + journal.started("new"))
    assert "new" in begun
    assert "new" not in done


def test_a_half_entry_is_cut_off_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(journal.started("a") + journal.ended("a", b"{}") + b"E b 1000\n{...")
    file = JournalFile(str(path))
    file.started("c")
    file.close()
    assert journal.parse(path.read_bytes()) == ({"a": b"{}"}, {"c"})


def test_it_is_private(tmp_path: Path) -> None:
    file = JournalFile(str(tmp_path / "j"))
    file.started("a")
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600
    file.close()


def test_it_keeps_one_predecessor(tmp_path: Path) -> None:
    path = tmp_path / "j"
    file = JournalFile(str(path), rotate_bytes=1000)
    for n in range(100):
        file.started(f"k{n}")
        file.ended(f"k{n}", b"x" * 100)
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["j", "j.1"]
    assert path.stat().st_size <= 1000
    assert (tmp_path / "j.1").stat().st_size <= 1000
    done, _ = journal.parse((tmp_path / "j.1").read_bytes() + path.read_bytes())
    assert "k99" in done


def test_a_symlink_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "j").symlink_to(tmp_path / "elsewhere")
    file = JournalFile(str(tmp_path / "j"))
    file.started("a")
    assert not (tmp_path / "elsewhere").exists()
    assert "can't be written" in capsys.readouterr().err


def test_its_failure_is_told_once_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = JournalFile(str(tmp_path / "missing" / "j"))
    for n in range(3):
        file.started(f"k{n}")
        file.ended(f"k{n}", b"{}")
    assert file.error
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_path_there_is_none() -> None:
    file = JournalFile(None)
    file.started("a")
    file.close()
    assert not file.error


def test_a_write_that_cannot_be_noted_is_reported_and_a_recovered_disk_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    journal_file = JournalFile(str(folder / "broker.journal"))
    assert journal_file.started("a.1.1") is False
    assert "can't be written" in journal_file.error
    assert journal_file.error in journal_file.trouble[0]["what"]
    assert [journal_file.changed(), journal_file.changed()] == [True, False]
    folder.mkdir()
    assert journal_file.started("a.1.2") is True
    assert journal_file.error == ""
    assert journal_file.trouble == []
    assert [journal_file.changed(), journal_file.changed()] == [True, False]
    journal_file.ended("a.1.2", b"{}")
    journal_file.close()
    assert journal.parse((folder / "broker.journal").read_bytes()) == ({"a.1.2": b"{}"}, set())


def test_a_missing_journal_is_not_a_failure() -> None:
    assert JournalFile(None).started("a.1.1") is True


@pytest.mark.parametrize("kind", ["fifo", "folder", "second name"])
def test_only_a_regular_file_that_no_other_user_can_write_is_written(tmp_path: Path, kind: str) -> None:
    path, own = tmp_path / "j", tmp_path / "own"
    own.write_bytes(b"precious")
    plant(path, kind, own)
    file = JournalFile(str(path))
    assert file.started("a") is False
    assert "can't be written" in file.error
    assert own.read_bytes() == b"precious"


def test_a_journal_beyond_all_bounds_is_put_aside_unread(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.touch()
    os.truncate(path, 1 << 40)
    file = JournalFile(str(path))
    assert file.started("a") is True
    file.close()
    assert path.read_bytes() == journal.started("a")
    assert (tmp_path / "j.1").stat().st_size == 1 << 40
