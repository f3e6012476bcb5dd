"""Reading the last lines of a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.system.logs import tail


def test_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert tail(str(log), 5) == []
    log.write_text("", encoding="utf-8")
    assert tail(str(log), 5) == []
    log.write_text("one\ntwo\nthree\nhalf", encoding="utf-8")
    assert tail(str(log), 2) == ["three", "half"]
    assert tail(str(log), 50) == ["one", "two", "three", "half"]
    assert tail(str(log), 0) == []


def test_a_long_log_is_read_from_its_end_in_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"".join(b"line %06d\n" % n for n in range(20_000)))
    lines = tail(str(log), 10**6)
    assert lines[-1] == "line 019999"
    assert len(lines) < 7_000
    assert all(len(line) == 11 for line in lines)


@given(n=st.integers(0, 40), lines=st.lists(st.text("abc é", max_size=30), max_size=60), ended=st.booleans())
def test_all_of_a_short_log_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, n: int, lines: list[str], ended: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    text = "\n".join(lines) + ("\n" if ended else "")
    path.write_text(text, encoding="utf-8")
    assert tail(str(path), n, 1 << 20) == (text.splitlines()[-n:] if n else [])


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"ok\n\xff\xfe\n")
    assert tail(str(log), 9) == ["ok", "\ufffd\ufffd"]


def test_a_directory_is_not_a_log(tmp_path: Path) -> None:
    assert tail(str(tmp_path), 3) == []
