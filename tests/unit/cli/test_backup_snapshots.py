"""How snapshots are made, tried, kept and put back, where no broker is needed for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.cli import staging
from mempalace_broker.cli.backup import tryout
from mempalace_broker.cli.backup.copying import Twin, copy_file, digest
from mempalace_broker.cli.backup.parts import Kind, parts_of
from mempalace_broker.cli.backup.snapshots import (
    BadSnapshot,
    Entry,
    Snapshot,
    find_snapshot,
    folder_lock,
    prune,
    snapshots_in,
    write_manifest,
)
from mempalace_broker.cli.demo.agent import CallFailed
from mempalace_broker.cli.steps import Steps
from mempalace_broker.errors import StateRootError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system.clock import Clock
from mempalace_broker.system.paths import Context, StateFiles
from mempalace_broker.system.pending_restore import Move, finish_restore, write_moves
from mempalace_broker.system.private import VARIABLE, PrivateFile
from mempalace_broker.system.snapshot_names import name_at

creating: Any = importlib.import_module("mempalace_broker.cli.backup.create")  # commands have these names, too
restoring: Any = importlib.import_module("mempalace_broker.cli.backup.restore")


def context_of(folder: Path, name: str = "palace") -> Context:
    palace = folder / name
    palace.mkdir(exist_ok=True)
    env = {"HOME": str(folder), VARIABLE: str(folder / "private")}
    identity = PalaceIdentity(str(palace), str(folder / "knowledge_graph.sqlite3"), "flag")
    files = StateFiles(str(folder), str(palace), env=env)
    return SimpleNamespace(identity=identity, files=files, env=env, clock=Clock())  # type: ignore[return-value]


def snapshot_of(palace: str, folder: Path, second: int) -> Snapshot:
    path = folder / f"2026-11-27T09-36-{second:02}Z"
    file = path / "palace" / "chroma.sqlite3"
    file.parent.mkdir(parents=True)
    file.write_text(f"new {second}")
    entry = Entry(file.stat().st_size, digest(str(file)))
    write_manifest(str(path), {"palace": {"path": palace}}, {"palace/chroma.sqlite3": entry})
    return Snapshot(str(path))


def test_snapshots_of_another_palace_are_neither_removed_nor_the_newest(tmp_path: Path) -> None:
    context, folder = context_of(tmp_path), tmp_path / "snapshots"
    palace = context.identity.path
    mine = [snapshot_of(palace, folder, second).name for second in (1, 3)]
    others = [snapshot_of("/other", folder, second).name for second in (2, 4)]
    assert find_snapshot(context, str(folder), None).name == mine[1]
    assert find_snapshot(context, str(folder), others[1]).palace == "/other"
    assert prune(str(folder), palace, 1) == mine[:1]
    assert [snapshot.name for snapshot in snapshots_in(str(folder))] == [others[0], mine[1], others[1]]
    assert prune(str(folder), "/third", 1) == []
    with pytest.raises(BadSnapshot, match="no snapshot of"):
        find_snapshot(context_of(tmp_path, "empty"), str(folder), None)


def test_one_dated_in_the_future_is_removed_before_one_that_was_made_now(tmp_path: Path) -> None:
    """The clock went back: pruning must not remove the snapshot that was made just before."""
    context, folder = context_of(tmp_path), tmp_path / "snapshots"
    older, now, next_year = (name_at(time.time() + seconds) for seconds in (-60, 0, 366 * 86_400))
    for name in (older, now, next_year):
        Path(snapshot_of(context.identity.path, folder, 0).path).rename(folder / name)
    assert find_snapshot(context, str(folder), None).name == now
    assert prune(str(folder), context.identity.path, 1) == [next_year, older]


class _Lent:
    """A loan that is granted at once."""

    def __init__(self, *_: object) -> None: ...

    @contextlib.contextmanager
    def borrow(self, _: object) -> Iterator[None]:
        yield


@pytest.mark.parametrize("name", ["palace", "palace.before-20261127T093601Z-abcdef"])
def test_a_palace_may_be_one_that_was_kept(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "Borrower", _Lent)
    context = context_of(tmp_path, name)
    (tmp_path / name / "chroma.sqlite3").write_text("old")
    aside = restoring.restore(context, snapshot_of(context.identity.path, tmp_path / "snapshots", 1), wait_s=1)
    assert (tmp_path / name / "chroma.sqlite3").read_text() == "new 1"
    assert Path(aside, "chroma.sqlite3").read_text() == "old"
    assert not list(tmp_path.glob("*.restore-*"))


@pytest.mark.parametrize("swapped", ["staging", "palace"])
def test_a_restore_writes_and_removes_nothing_behind_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """As a container can put one there that has the state root mounted, here where no private folder can be used."""
    monkeypatch.setattr(staging, "_use_private", lambda *_: False)
    context, home = context_of(tmp_path), tmp_path / "home"
    made = snapshot_of(context.identity.path, tmp_path / "snapshots", 1)
    home.mkdir()
    (home / "chroma.sqlite3" if swapped == "staging" else home / "mine").write_text("mine")

    def swap(which: str) -> None:
        folders = list(tmp_path.glob("palace.restore-*" if which == "staging" else "palace"))
        if which == swapped and not folders[0].is_symlink():
            swap_for_link(folders[0], tmp_path / "moved", home)

    class Lent(_Lent):
        @contextlib.contextmanager
        def borrow(self, _: object) -> Iterator[None]:
            swap("palace")
            yield

    def copied(*words: Any, **more: Any) -> bool:
        swap("staging")
        return copy_file(*words, **more)

    monkeypatch.setattr(restoring, "Borrower", Lent)
    monkeypatch.setattr(restoring, "copy_file", copied)
    before = {path.name: path.read_text() for path in home.iterdir()}
    with pytest.raises(StateRootError, match="is not restored"):
        restoring.restore(context, made, wait_s=1)
    assert {path.name: path.read_text() for path in home.iterdir()} == before


def test_a_restore_stages_where_no_guest_can_write_and_clears_a_link_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()

    def decided(marker: PrivateFile, moves: Sequence[Move], drop: Sequence[str]) -> None:
        assert not list(tmp_path.glob("*.restore-*"))
        Path(moves[0].aside).parent.symlink_to(home)
        write_moves(marker, moves, drop)

    monkeypatch.setattr(restoring, "Borrower", _Lent)
    monkeypatch.setattr(restoring, "write_moves", decided)
    context = context_of(tmp_path)
    (tmp_path / "palace" / "chroma.sqlite3").write_text("old")
    aside = restoring.restore(context, snapshot_of(context.identity.path, tmp_path / "snapshots", 1), wait_s=1)
    assert {path.name: path.read_text() for path in (tmp_path / "palace").iterdir()} == {"chroma.sqlite3": "new 1"}
    assert Path(aside, "chroma.sqlite3").read_text() == "old"
    assert list(home.iterdir()) == []
    assert not list(Path(context.files.private.path).glob("restore-*"))


@pytest.mark.parametrize("private", ["private", "palace.private"])
def test_a_restore_puts_back_what_belongs_elsewhere_than_in_the_palace(
    private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "Borrower", _Lent)
    context = context_of(tmp_path)
    context.files = StateFiles(str(tmp_path), context.identity.path, env={VARIABLE: str(tmp_path / private)})
    made = snapshot_of(context.identity.path, tmp_path / "snapshots", 1)
    graph = Path(made.path, "graph", "knowledge_graph.sqlite3")
    graph.parent.mkdir()
    graph.write_text("new graph")
    made.files["graph/knowledge_graph.sqlite3"] = Entry(graph.stat().st_size, digest(str(graph)))
    Path(context.identity.graph).write_text("old graph")
    restoring.restore(context, made, wait_s=1)
    assert Path(context.identity.graph).read_text() == "new graph"
    assert [path.read_text() for path in tmp_path.glob("knowledge_graph.sqlite3.before-*")] == ["old graph"]


def test_a_restore_that_is_interrupted_once_it_is_decided_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(marker: PrivateFile, moves: Sequence[Move], drop: Sequence[str]) -> None:
        write_moves(marker, moves, drop)
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "Borrower", _Lent)
    monkeypatch.setattr(restoring, "write_moves", interrupted)
    context = context_of(tmp_path)
    for name in ("chroma.sqlite3", "only-there-before"):
        (tmp_path / "palace" / name).write_text("old")
    with pytest.raises(KeyboardInterrupt):
        restoring.restore(context, snapshot_of(context.identity.path, tmp_path / "snapshots", 1), wait_s=1)
    assert finish_restore(context.files.restore) == 2
    assert {path.name: path.read_text() for path in (tmp_path / "palace").iterdir()} == {"chroma.sqlite3": "new 1"}


def test_what_chroma_truncates_is_not_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = []

    class Mapped:
        def __init__(self, source: str, *_: str) -> None:
            mapped.append(Path(source).name)

        def catch_up(self) -> None: ...

    monkeypatch.setattr(creating, "Twin", Mapped)
    monkeypatch.setattr(creating, "copy_file", lambda *_: False)  # not a clone
    context = context_of(tmp_path)
    for name in ("chroma.sqlite3", "index_metadata.pickle", "data_level0.bin"):
        (tmp_path / "palace" / name).write_bytes(b"")
    creating._Copies(context, str(tmp_path / "copies"), Steps()).copy_ahead()
    assert sorted(mapped) == ["chroma.sqlite3", "data_level0.bin"]


def test_a_snapshot_is_tried_with_the_users_embedding_model(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "snapshots"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    made = snapshot_of("/p", folder, 1)
    path = Path(made.path)
    config = {"palace_path": "/p", "embedding_model": "embeddinggemma", "hooks": {}}
    (path / "config").mkdir()
    (path / "config" / "config.json").write_text(json.dumps(config))
    (path / "manifest.json").unlink()
    write_manifest(made.path, {}, {**made.files, "config/config.json": Entry(0, "")})
    with tryout._copy_of(Snapshot(made.path), home) as copy:
        said = json.loads((copy / ".mempalace" / "config.json").read_text())
        assert said == {"palace_path": str(copy / ".mempalace" / "palace"), "embedding_model": "embeddinggemma"}
        assert (copy / ".cache" / "huggingface").samefile(home / ".cache" / "huggingface")


def test_what_another_create_has_under_way_is_its_own(tmp_path: Path) -> None:
    with creating._new_partial(str(tmp_path), 0.0) as one:
        with creating._new_partial(str(tmp_path), 0.0) as two:
            assert one != two
        assert Path(one).is_dir()
        with folder_lock(str(tmp_path), fcntl.LOCK_SH):
            prune(str(tmp_path), "/p", 1)
            assert Path(one).is_dir()
        prune(str(tmp_path), "/p", 1)
        assert list(tmp_path.iterdir()) == [], "as of one that was killed"


def test_what_is_wrong_with_a_snapshot_is_told_though_its_broker_does_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf:
        def __init__(self, *_: object) -> None: ...

        def initialize(self) -> None:
            raise CallFailed("no answer to initialize")

        def kill(self) -> None: ...

    def hangs(argv: Sequence[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(argv, 60.0)

    monkeypatch.setattr(tryout, "expected_engine", lambda *_: None)
    monkeypatch.setattr(tryout, "Agent", Deaf)
    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(BadSnapshot, match="no answer to initialize"):
        tryout.try_out(snapshot_of("/p", tmp_path / "snapshots", 1), {"HOME": str(tmp_path)}, "/p")


def test_a_config_behind_the_users_own_links_is_copied(tmp_path: Path) -> None:
    context, dotfiles = context_of(tmp_path), tmp_path / "dotfiles"
    (dotfiles / "mempalace").mkdir(parents=True)
    (dotfiles / "config.json").write_text("{}")
    (dotfiles / "mempalace" / "config.json").symlink_to("../config.json")
    (tmp_path / ".mempalace").symlink_to("dotfiles/mempalace")
    (part,) = parts_of(context)
    copy_file(part.path, str(tmp_path / "copy"), lambda _: None)
    assert (part.name, (tmp_path / "copy").read_text()) == ("config/config.json", "{}")


def swap_for_link(folder: Path, aside: Path, target: Path) -> None:
    folder.rename(aside)
    folder.symlink_to(target)


def test_a_folder_that_becomes_a_link_while_files_are_copied_leads_nowhere(tmp_path: Path) -> None:
    context, palace = context_of(tmp_path), tmp_path / "palace"
    secret, guests = tmp_path / "home", palace / "a"
    for folder in (secret / "keys", guests / "keys"):
        folder.mkdir(parents=True)
        (folder / "private.bin").write_text(str(folder))
    (part,) = parts_of(context)
    swap_for_link(guests, palace / "b", secret)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        copy_file(part.path, str(tmp_path / "copy"), lambda _: None, part.root)
    assert not (tmp_path / "copy").exists()
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        Twin(part.path, str(tmp_path / "copy"), part.root)


@pytest.mark.parametrize("deep", [False, True])
def test_a_database_that_becomes_a_link_is_not_copied(tmp_path: Path, deep: bool) -> None:
    context, palace = context_of(tmp_path), tmp_path / "palace"
    secret, guests = tmp_path / "home" / "x.sqlite3", palace / "a" / "x.sqlite3"
    for path in (secret, guests):
        path.parent.mkdir()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE t (c)")
    (part,) = parts_of(context)
    assert part.kind is Kind.WAL_DATABASE
    creating._hold(part).close()
    swap_for_link(*((guests.parent, palace / "b", secret.parent) if deep else (guests, palace / "b", secret)))
    with pytest.raises(OSError, match=r"replaced by a link|Not a directory|symbolic links"):
        creating._hold(part)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "make room, or name another folder: --dir"),
        (
            OSError(errno.EACCES, "Permission denied", "/snaps/.partial-x"),
            "access to it, or name another folder: --dir",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "/h/.mempalace/palace/chroma.sqlite3"),
            "give yourself access to it",
        ),
        (sqlite3.OperationalError("database is locked"), "mempalace-broker doctor"),
    ],
)
def test_the_hint_of_a_snapshot_that_was_not_made_fits_the_error(error: OSError | sqlite3.Error, hint: str) -> None:
    assert creating._hint(error, "/snaps").endswith(hint)


def test_a_busy_database_is_tried_again(tmp_path: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "db")) as holder,
        contextlib.closing(sqlite3.connect(tmp_path / "db", timeout=0)) as other,
    ):
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as busy:
            other.execute("CREATE TABLE t (x)")
    assert creating._hint(busy.value, "/snaps") == "try again"


def test_a_snapshot_that_is_not_there_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(BadSnapshot, match="there is no snapshot 2026-11-27T09-36-01Z in "):
        find_snapshot(context_of(tmp_path), str(tmp_path), "2026-11-27T09-36-01Z")
