"""Tune-ups that read less: each applies only to the mempalace that it was made for, and misses no change."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups import read_caches
from mempalace_broker.engine.tuneups.chroma_writes import Write
from mempalace_broker.engine.tuneups.read_caches import INSTALLED_CACHE, OVERVIEW_CACHE, OWN_WRITES, PIN_ONCE
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit, TuneUp
from tests.fakes.mempalace import FakeMempalace, touch


def apply(tuneup: TuneUp, mempalace: FakeMempalace) -> None:
    tuneup.apply(mempalace)  # type: ignore[arg-type]


# -- pin-once --------------------------------------------------------------------------------------------


class Client:
    pass


def test_a_collection_is_pinned_once_per_open_client(tmp_path: Path) -> None:
    pinned = []

    def pin(collection: Any) -> None:
        pinned.append(collection.id)

    chroma, server = SimpleNamespace(_pin_hnsw_threads=pin), SimpleNamespace(_pin_hnsw_threads=pin)
    apply(PIN_ONCE, FakeMempalace(tmp_path, server, backends__chroma=chroma))
    client, reopened = Client(), Client()
    for owner in (client, client, reopened, reopened):
        server._pin_hnsw_threads(SimpleNamespace(id="drawers", _client=owner))
        chroma._pin_hnsw_threads(SimpleNamespace(id="closets", _client=owner))
    assert pinned == ["drawers", "closets"] * 2
    for _ in range(2):
        server._pin_hnsw_threads(SimpleNamespace(id="odd"))  # no client that we could know again
    assert pinned[4:] == ["odd", "odd"]


@pytest.mark.parametrize("pin", [None, lambda: None, lambda collection, more: None])
def test_another_pin_is_left_alone(tmp_path: Path, pin: Any) -> None:
    chroma, server = SimpleNamespace(_pin_hnsw_threads=pin), SimpleNamespace(_pin_hnsw_threads=pin)
    with pytest.raises(DoesNotFit):
        apply(PIN_ONCE, FakeMempalace(tmp_path, server, backends__chroma=chroma))
    assert server._pin_hnsw_threads is pin


# -- own-writes ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def watchers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is called after each write."""
    found: list[Any] = []
    monkeypatch.setattr(read_caches, "watch_writes", found.append)
    return found


def own_writes(tmp_path: Path) -> tuple[FakeMempalace, SimpleNamespace, dict[str, Any]]:
    (tmp_path / "chroma.sqlite3").write_bytes(b"db")
    server = SimpleNamespace(
        _client_cache=object(),
        _palace_db_inode=0,
        _palace_db_mtime=0.0,
        _metadata_cache=["cached"],
        _is_chroma_backend=lambda: True,
    )
    freshness: dict[str, Any] = {str(tmp_path): (0, 0.0)}
    palace = SimpleNamespace(get_backend_for_palace=lambda palace_path: SimpleNamespace(_freshness=freshness))
    chroma = SimpleNamespace(ChromaBackend=SimpleNamespace(_db_stat=None))
    return FakeMempalace(tmp_path, server, palace=palace, backends__chroma=chroma), server, freshness


def test_our_last_write_is_not_taken_for_a_change(tmp_path: Path) -> None:
    mempalace, server, freshness = own_writes(tmp_path)
    apply(OWN_WRITES, mempalace)
    mempalace.after_call[0]()
    stat = (tmp_path / "chroma.sqlite3").stat()
    assert (server._palace_db_inode, server._palace_db_mtime) == (stat.st_ino, stat.st_mtime)
    assert freshness[str(tmp_path)] == (stat.st_ino, stat.st_mtime)
    assert server._metadata_cache is None


def test_after_a_delete_mempalace_opens_the_client_again(tmp_path: Path, watchers: list[Any]) -> None:
    mempalace, server, freshness = own_writes(tmp_path)
    apply(OWN_WRITES, mempalace)
    watchers[0](Write("drawers", ["a"], deletes=True))
    for _ in range(2):  # the second call has not asked for the client
        mempalace.after_call[0]()
        assert (server._palace_db_mtime, freshness[str(tmp_path)]) == (0.0, (0, 0.0))
    server._client_cache = object()
    watchers[0](Write("drawers", ["a"]))
    mempalace.after_call[0]()
    assert server._palace_db_mtime == freshness[str(tmp_path)][1] == (tmp_path / "chroma.sqlite3").stat().st_mtime


def test_a_client_that_was_closed_after_a_delete_is_let_go(tmp_path: Path, watchers: list[Any]) -> None:
    mempalace, server, _ = own_writes(tmp_path)
    apply(OWN_WRITES, mempalace)
    watchers[0](Write("drawers", None, deletes=True))
    mempalace.before_close[0]()
    mempalace.after_call[0]()
    assert server._palace_db_mtime != 0.0


def test_a_cache_that_nothing_made_stale_is_kept(tmp_path: Path) -> None:
    mempalace, server, _ = own_writes(tmp_path)
    apply(OWN_WRITES, mempalace)
    server._palace_db_mtime = (tmp_path / "chroma.sqlite3").stat().st_mtime
    mempalace.after_call[0]()
    assert server._metadata_cache == ["cached"]


def test_a_missing_database_is_no_error(tmp_path: Path) -> None:
    mempalace, _, _ = own_writes(tmp_path)
    apply(OWN_WRITES, mempalace)
    (tmp_path / "chroma.sqlite3").unlink()
    mempalace.after_call[0]()


# -- overview-cache --------------------------------------------------------------------------------------


def overview(palace: Path, rows: list[Any]) -> tuple[SimpleNamespace, list[int]]:
    calls: list[int] = []

    def get(col: Any, where: Any = None) -> list[Any]:
        calls.append(1)
        return list(rows)

    config = SimpleNamespace(palace_path=str(palace), collection_name="drawers")
    server = SimpleNamespace(_get_cached_metadata=get, _metadata_cache=["old"], _config=config)
    apply(OVERVIEW_CACHE, FakeMempalace(palace, server))
    return server, calls


def test_the_overview_is_read_again_only_after_a_change(tmp_path: Path) -> None:
    rows: list[Any] = [{"wing": "a"}]
    server, calls = overview(tmp_path, rows)
    for n, name in enumerate(["chroma.sqlite3", "chroma.sqlite3", "chroma.sqlite3-wal"], start=1):
        touch(tmp_path / name, ago_s=60 - n)
        rows.append({"wing": name})
        assert [server._get_cached_metadata("col") for _ in range(3)] == [rows] * 3
        assert len(calls) == n
    server._get_cached_metadata("col", {"wing": "a"})
    assert len(calls) == 4
    assert server._metadata_cache is None


def test_an_overview_of_a_database_in_flux_is_not_kept(tmp_path: Path) -> None:
    server, calls = overview(tmp_path, [])
    for _ in range(2):
        server._get_cached_metadata("col")  # no database yet
    touch(tmp_path / "chroma.sqlite3", ago_s=-5)
    for _ in range(2):
        server._get_cached_metadata("col")
    assert len(calls) == 4


def test_a_version_with_its_own_overview_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="itself"):
        apply(OVERVIEW_CACHE, FakeMempalace(tmp_path, SimpleNamespace(_invalidate_overview_caches=None)))


# -- installed-cache -------------------------------------------------------------------------------------


class Installed:
    """A server that looks for what is installed; `listed` has the folders in which it looked."""

    _STALE_LIBRARY_WATCHED_DISTS: tuple[str, ...] = ("mempalace",)

    def __init__(self) -> None:
        self.listed: list[str] = []
        self.readable = True
        self._watched_metadata_files = self.look

    def look(self, root: str) -> list[str]:
        self.listed.append(root)
        names = os.listdir(root) if self.readable else []
        return sorted(name for name in names if name.startswith(self._STALE_LIBRARY_WATCHED_DISTS))


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    server = Installed()
    apply(INSTALLED_CACHE, FakeMempalace(tmp_path, server))
    return server


def hours_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)


def test_a_folder_of_packages_is_listed_once(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours_pass(monkeypatch)
    root = str(tmp_path)
    for version in ("mempalace-1.dist-info", "mempalace-2.dist-info"):
        (tmp_path / version).mkdir()
        for _ in range(3):
            found = installed._watched_metadata_files(root)
            assert found == sorted(os.listdir(root))
            found.clear()  # of this one alone
    assert len(installed.listed) == 2
    (tmp_path / "mempalace-1.dist-info").rename(tmp_path / "elsewhere")
    assert installed._watched_metadata_files(root) == ["mempalace-2.dist-info"]
    installed._STALE_LIBRARY_WATCHED_DISTS = ("mempalace", "else")
    assert installed._watched_metadata_files(root) == ["elsewhere", "mempalace-2.dist-info"]


def test_a_folder_that_changed_a_moment_ago_is_listed_again(installed: Installed, tmp_path: Path) -> None:
    for _ in range(2):
        assert installed._watched_metadata_files(str(tmp_path)) == []
    assert len(installed.listed) == 2


def test_nothing_found_is_remembered_only_where_nothing_is(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours_pass(monkeypatch)
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
    (full / "mempalace-1.dist-info").mkdir()
    installed.readable = False  # as with too many open files
    for _ in range(2):
        assert [installed._watched_metadata_files(str(folder)) for folder in (empty, full)] == [[], []]
    assert installed.listed == [str(empty), str(full), str(full)]
    installed.readable = True
    assert installed._watched_metadata_files(str(full)) == ["mempalace-1.dist-info"]


def test_changed_permissions_are_noticed(installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours_pass(monkeypatch)
    (tmp_path / "mempalace-1.dist-info").mkdir()
    for mode in (0o700, 0o500, 0o700):
        time.sleep(0.02)  # the clock of a file system has a tick
        tmp_path.chmod(mode)
        installed._watched_metadata_files(str(tmp_path))
    assert len(installed.listed) == 3


def test_a_version_that_looks_for_nothing_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit):
        apply(INSTALLED_CACHE, FakeMempalace(tmp_path, SimpleNamespace()))
