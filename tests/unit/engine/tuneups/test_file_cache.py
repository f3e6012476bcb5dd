"""An answer holds while its files are unchanged, and only where a change would show."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.engine.tuneups import file_cache
from mempalace_broker.engine.tuneups.file_cache import FileCache, stamps_of
from tests.fakes.mempalace import touch

KEY = ("palace", "what")


def test_an_answer_holds_until_one_of_its_files_changes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    touch(files[0], ago_s=60)
    paths = [str(file) for file in files]
    cache = FileCache()
    for changed in (files[1], files[0]):
        cache.put(KEY, "answer", paths, [])
        assert [cache.get(KEY), cache.get(KEY)] == ["answer"] * 2
        touch(changed, ago_s=30)
        assert cache.get(KEY) is None


def test_a_file_changed_just_now_is_not_trusted(tmp_path: Path) -> None:
    cache = FileCache()
    touch(tmp_path / "file", ago_s=-5)  # as seen from a clock that runs behind
    cache.put(KEY, "answer", [str(tmp_path / "file")], [])
    assert cache.get(KEY) is None


def test_a_file_changed_meanwhile_is_not_trusted(tmp_path: Path) -> None:
    cache, path = FileCache(), str(tmp_path / "file")
    touch(tmp_path / "file", ago_s=60)
    before = stamps_of([path])
    touch(tmp_path / "file", ago_s=30)
    cache.put(KEY, "answer", [path], before)
    assert cache.get(KEY) is None


def test_two_threads_may_see_the_same_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, path = FileCache(), tmp_path / "file"
    touch(path, ago_s=60)
    cache.put(KEY, "answer", [str(path)], [])
    touch(path, ago_s=30)

    def after_the_other(paths: list[str]) -> object:
        monkeypatch.setattr(file_cache, "stamps_of", stamps_of)
        assert cache.get(KEY) is None
        return stamps_of(paths)

    monkeypatch.setattr(file_cache, "stamps_of", after_the_other)
    assert cache.get(KEY) is None
