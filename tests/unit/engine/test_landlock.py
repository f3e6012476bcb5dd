"""The kernel keeps a process, its later threads and its children from writing elsewhere, C code included."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine import landlock
from mempalace_broker.engine.write_limits import limit_writes

pytestmark = pytest.mark.skipif(landlock.version() < landlock.OLDEST, reason="this kernel lacks it")

# argv: a folder that may be written, one that may not
_SCRIPT = """
import os, shutil, sqlite3, subprocess, sys, threading
from pathlib import Path
from mempalace_broker.engine import landlock
mine, others = map(Path, sys.argv[1:])
landlock.restrict_writes([str(mine / "sub" / "link"), str(mine), "/dev/null", str(mine / "missing")])

def refused(do):
    try:
        do()
    except (PermissionError, sqlite3.OperationalError):
        return True
    return False

def writes(path, name):
    yield lambda: open(path, "a").close()
    yield lambda: open(path, "r+").close()
    yield lambda: os.truncate(path, 0)
    yield lambda: os.mkdir(path.parent / f"{name}-folder")
    yield lambda: os.symlink("x", path.parent / f"{name}-link")
    yield lambda: os.mkfifo(path.parent / f"{name}-fifo")
    yield lambda: sqlite3.connect(path.parent / f"{name}-db").execute("create table t (a)")
    yield lambda: os.rename(path, path.parent / f"{name}-renamed")
    yield lambda: os.unlink(path.parent / f"{name}-renamed" if (path.parent / f"{name}-renamed").exists() else path)

for number, do in enumerate(writes(mine / "file", "mine")):
    assert not refused(do), number
(mine / "file").write_text("x")
for number, do in enumerate(writes(others / "file", "others")):
    assert refused(do) or number == 2 and landlock.version() < 3, number
for number, do in enumerate(list(writes(mine / "link", "link"))[:3]):
    assert refused(do) or number == 2 and landlock.version() < 3, number
assert refused(lambda: sqlite3.connect(mine / "db").execute("create table t (a)")), "a link to a database of another"
assert refused(lambda: os.rename(mine / "file", others / "moved"))
assert refused(lambda: os.rename(others / "file", mine / "moved"))
os.mkdir(mine / "a")
os.rename(mine / "file", mine / "a" / "file")
free = []
thread = threading.Thread(target=lambda: free.append(refused(lambda: open(others / "file", "a"))))
thread.start(); thread.join()
assert free == [True]
assert subprocess.run(["sh", "-c", 'echo x >> "$1"', "sh", str(others / "file")], stderr=subprocess.DEVNULL).returncode
assert (others / "file").read_text() == "precious", "reading is free"
shutil.rmtree(mine / "a")
print("done")
"""


def test_writes_stay_inside(tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "others"
    for folder in (mine, others):
        folder.mkdir()
        (folder / "file").write_text("precious")
    (mine / "link").symlink_to(others / "file")
    (mine / "db").symlink_to(others / "of-another.sqlite3")
    argv = [sys.executable, "-c", _SCRIPT, *map(os.path.realpath, (mine, others))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr
    assert sorted(os.listdir(others)) == ["file"]


def test_where_the_kernel_has_none_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "_CREATE_RULESET", 100_000)
    assert landlock.version() == 0
    with pytest.raises(OSError, match="not implemented"):
        landlock.restrict_writes([])


# argv: the palace
_LARGE_SORT = """
import sqlite3, sys
from types import SimpleNamespace
from mempalace_broker.engine.write_limits import limit_writes
palace = sys.argv[1]
server = SimpleNamespace(palace_path=lambda: palace, graph_path=lambda: None, config_path=lambda: "")
limit_writes(server, None)
with sqlite3.connect(palace + "/db") as db:
    db.execute("CREATE TABLE t (a)")
    db.executemany("INSERT INTO t VALUES (?)", ((f"{n * 7919 % 100003:080}",) for n in range(100_000)))
assert len(db.execute("SELECT a FROM t ORDER BY a DESC").fetchall()) == 100_000
"""


def test_sqlite_can_sort_what_is_larger_than_its_cache(tmp_path: Path) -> None:
    """It spills to a folder that it chose when it was imported: a palace of 100,000 drawers needs that."""
    palace = tmp_path / "palace"
    palace.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "SQLITE_TMPDIR")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(landlock.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", _LARGE_SORT, str(palace)], env=env, check=True, timeout=60)


# argv: the palace
_OWN_TEMPORARY = """
import os, sys
from types import SimpleNamespace
from mempalace_broker.engine.write_limits import limit_writes
server = SimpleNamespace(palace_path=lambda: sys.argv[1], graph_path=lambda: None, config_path=lambda: "")
chosen = os.environ["SQLITE_TMPDIR"]
limit_writes(server, None)
assert os.environ["SQLITE_TMPDIR"] == chosen
open(chosen + "/sorted", "x").close()
"""


def test_sqlites_temporary_folder_of_the_users_choice_stays(tmp_path: Path) -> None:
    """Where /tmp is small, an index of a large palace is sorted elsewhere."""
    for name in ("palace", "temporary", "large"):
        (tmp_path / name).mkdir()
    env = dict(os.environ, TMPDIR=str(tmp_path / "temporary"), SQLITE_TMPDIR=str(tmp_path / "large"))
    env |= {"HOME": str(tmp_path / "palace"), "PYTHONPATH": str(Path(landlock.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", _OWN_TEMPORARY, str(tmp_path / "palace")], env=env, check=True, timeout=60)


@pytest.mark.parametrize(
    ("named", "allowed"),
    [("{0}/db/milvus.db", True), ("~/db/milvus.db", True), ("http://{0}/db/x", False), ("", False)],
)
def test_a_database_file_that_the_users_settings_name(
    named: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr(landlock, "restrict_writes", given.extend)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMPALACE_MILVUS_URI", named.format(tmp_path))
    files: Any = {"palace_path": lambda: f"{tmp_path}/p/palace", "graph_path": lambda: None, "config_path": lambda: ""}
    limit_writes(SimpleNamespace(**files), None)  # type: ignore[arg-type]  # all that it asks
    assert (f"{tmp_path}/db" in given) == allowed


def test_a_system_without_temporary_folder_has_limits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.delenv("SQLITE_TMPDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    limited: list[str] = []
    monkeypatch.setattr(landlock, "LINUX", True)
    monkeypatch.setattr(landlock, "version", lambda: landlock.OLDEST)
    monkeypatch.setattr(landlock, "restrict_writes", limited.extend)
    palace = str(tmp_path / "folder" / "palace")
    mempalace: Any = SimpleNamespace(palace_path=lambda: palace, graph_path=lambda: None, config_path=lambda: "")
    assert limit_writes(mempalace, None) == ""
    assert palace in limited
