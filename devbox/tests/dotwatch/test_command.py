"""The command dot-watch with real Graphviz, as users run it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devbox.tests.needs import Program, run, running
from tests.proctools import children_of, eventually

SAVES = 200
Direct = Callable[..., bytes]


@pytest.fixture
def watched(tmp_path: Path, direct: Direct) -> Iterator[Program]:
    """dot-watch on a.dot, after the first picture."""
    (tmp_path / "a.dot").write_text("digraph { a -> b }")
    with running(["dot-watch", "a.dot", "96"], tmp_path, DOT_WATCH_INTERVAL="0.05") as program:
        program.says("a.dot -> a.png")
        yield program


def is_whole(png: bytes) -> bool:
    """Whether it has all chunks of a PNG, with valid checksums."""
    at = 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        body = png[at + 4 : at + 8 + size]
        if int.from_bytes(png[at + 8 + size : at + 12 + size]) != zlib.crc32(body):
            return False
        at += 12 + size
        if body[:4] == b"IEND":
            return at == len(png)
    return False


def save(path: Path, text: str, chance: random.Random) -> None:
    """Save a file the way some editor does."""
    how = chance.randrange(4)
    if how == 0:  # in place
        path.write_text(text)
    elif how == 1:  # beside it, and renamed
        beside = path.with_suffix(".swp")
        beside.write_text(text)
        beside.replace(path)
    elif how == 2:  # deleted, and made anew
        path.unlink(missing_ok=True)
        path.write_text(text)
    else:  # in pieces
        with path.open("w") as file:
            for start in range(0, len(text), 9):
                file.write(text[start : start + 9])
                file.flush()


def test_two_hundred_rapid_saves_end_in_the_last_picture(watched: Program, tmp_path: Path, direct: Direct) -> None:
    seed = int(os.environ.get("MPB_SEED") or random.randrange(2**32))
    print(f"MPB_SEED={seed}")
    chance = random.Random(seed)
    torn: list[int] = []
    over = threading.Event()

    def view() -> None:
        while not over.wait(0.002):
            picture = (tmp_path / "a.png").read_bytes()
            if not is_whole(picture):
                torn.append(len(picture))

    viewer = threading.Thread(target=view)
    viewer.start()
    try:
        for number in range(SAVES):
            broken = number % 7 == 3
            text = f"digraph {{ a -> b{number}; b{number} -> c" + ("" if broken else " }")
            save(tmp_path / "a.dot", text, chance)
            over.wait(chance.uniform(0, 0.02))
        last = "digraph { last -> picture }"
        save(tmp_path / "a.dot", last, chance)
        want = direct(last, dpi=96)
        eventually(lambda: (tmp_path / "a.png").read_bytes() == want, what="the last picture")
    finally:
        over.set()
        viewer.join(10)
    assert torn == []
    assert watched.end() == 130
    assert sorted(os.listdir(tmp_path)) == ["a.dot", "a.png", "dot-watch.out"]


def test_an_error_is_shown_indented_with_the_time_and_watching_goes_on(
    watched: Program, tmp_path: Path, direct: Direct
) -> None:
    before = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.dot").write_text("digraph { a -> ")
    watched.says("a.dot:\n    Error: a.dot: syntax error in line 1")
    assert (tmp_path / "a.png").read_bytes() == before
    (tmp_path / "a.dot").write_text("digraph { x -> y }")
    watched.says("a.dot -> a.png", times=2)
    assert (tmp_path / "a.png").read_bytes() == direct("digraph { x -> y }", dpi=96)
    assert watched.end() == 130
    lines = [line for line in watched.said.splitlines() if line]
    assert all(line[0] == "[" and line[9] == "]" for line in lines[:-1] if not line.startswith("    "))
    assert lines[-1] == "dot-watch: stopped."
    assert watched.said.count("syntax error") == 1


def test_deleted_and_recreated(watched: Program, tmp_path: Path) -> None:
    (tmp_path / "a.dot").unlink()
    watched.says("a.dot is gone; waiting for it")
    (tmp_path / "a.dot").write_text("digraph { a -> b }")
    watched.says("a.dot -> a.png", times=2)
    (tmp_path / "a.png").unlink()
    watched.says("a.dot -> a.png", times=3)
    assert watched.said.count("gone") == 1


def test_saves_that_no_time_stamp_tells_apart(watched: Program, tmp_path: Path, direct: Direct) -> None:
    path = tmp_path / "a.dot"
    for number, name in enumerate("pqrs", 2):
        path.write_text(f"digraph {{ a -> {name} }}")
        os.utime(path, ns=(10**18, 10**18))
        watched.says("a.dot -> a.png", times=number)
    assert (tmp_path / "a.png").read_bytes() == direct("digraph { a -> s }", dpi=96)


def test_a_folder_with_new_files_and_other_formats(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/one.dot").write_text("graph { a -- b }")
    argv = ["dot-watch", "--format", "svg", "d", "neato"]
    with running(argv, tmp_path, DOT_WATCH_INTERVAL="0.05") as program:
        program.says("d/one.dot -> d/one.svg")
        (tmp_path / "d/two.gv").write_text("graph { c -- d }")
        program.says("d/two.gv -> d/two.gv.svg")
        assert (tmp_path / "d/two.gv.svg").read_bytes() == direct("graph { c -- d }", "neato", form="svg")
        shutil.rmtree(tmp_path / "d")
        program.says("can't read d: No such file or directory")
        (tmp_path / "d").mkdir()
        (tmp_path / "d/three.dot").write_text("graph { e }")
        program.says("d/three.dot -> d/three.svg")


def test_a_picture_that_can_not_be_written_is_told_and_no_end(watched: Program, tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a.dot").write_text("digraph { z }")
    watched.says("can't write a.png: ")
    (tmp_path / "a.png").rmdir()
    (tmp_path / "a.dot").write_text("digraph { zz }")
    watched.says("a.dot -> a.png", times=2)


def test_a_signal_in_the_middle_of_a_drawing_leaves_nothing(tmp_path: Path, direct: Direct) -> None:
    edges = " ".join(f"{a} -> {b};" for a in range(80) for b in range(80))
    (tmp_path / "big.dot").write_text(f"digraph {{ {edges} }}")
    with running(["dot-watch", "big.dot"], tmp_path) as program:
        engines = eventually(lambda: children_of(program.process.pid), what="the engine")
        assert program.end(signal.SIGTERM) == 143
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines), what="the end of the engine")
    assert sorted(os.listdir(tmp_path)) == ["big.dot", "dot-watch.out"]


SLOW = "digraph {" + " ".join(f"{a} -> {b};" for a in range(150) for b in range(150)) + "}"


def test_a_large_graph_delays_no_other_one_and_is_mentioned(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "big.dot").write_text(SLOW)
    (tmp_path / "small.dot").write_text("digraph { a }")
    with running(["dot-watch", "big.dot", "small.dot"], tmp_path, DOT_WATCH_INTERVAL="0.05") as program:
        program.says("small.dot -> small.png")
        (tmp_path / "small.dot").write_text("digraph { b }")
        program.says("small.dot -> small.png", times=2)
        program.says("big.dot: drawing for 2 s")
        assert "big.dot ->" not in program.said
        (tmp_path / "big.dot").write_text("digraph { quick }")
        program.says("big.dot -> big.png")
        assert (tmp_path / "big.png").read_bytes() == direct("digraph { quick }")
        eventually(lambda: not children_of(program.process.pid), what="the end of the old drawing")


def test_a_limit_is_named(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "big.dot").write_text(SLOW)
    done = run(["dot-watch", "--once", "--limit", "0.3", "big.dot"], tmp_path)
    assert done.returncode == 1
    assert "dot took longer than 0.3 s (--limit), and was ended" in done.stdout


def test_an_error_is_told_at_once(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "a.dot").write_text("digraph {")
    with running(["dot-watch", "a.dot"], tmp_path, DOT_WATCH_INTERVAL="3600") as program:
        program.says("syntax error")


def test_no_two_graphs_share_a_picture(tmp_path: Path, direct: Direct) -> None:
    for name, text in {"a.gv": "graph { a }", "a.gv.dot": "graph { b }", "b.dot": "graph { c } graph { d }"}.items():
        (tmp_path / name).write_text(text)
    done = run(["dot-watch", "--once", "."], tmp_path)
    assert (done.returncode, "./b.dot -> ./b.png, ./b.dot.2.png" in done.stdout) == (0, True)
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    want = {"a.gv.png": "a", "a.gv.dot.png": "b", "b.png": "c", "b.dot.2.png": "d"}
    assert drawn == {name: direct(f"graph {{ {node} }}") for name, node in want.items()}
    (tmp_path / "b").write_text("graph { e }")
    done = run(["dot-watch", "--once", "b.dot", "b"], tmp_path)
    assert done.returncode == 1
    assert "b.png is the picture of b.dot: rename one of them" in done.stdout


@pytest.mark.parametrize(
    ("dpi", "said"), [("96.5", ""), ("150dpi", "neither a file nor a dpi"), ("0", "dpi: a number")]
)
def test_a_dpi(tmp_path: Path, direct: Direct, dpi: str, said: str) -> None:
    (tmp_path / "a.dot").write_text("graph { a }")
    done = run(["dot-watch", "--once", "a.dot", dpi], tmp_path)
    assert (done.returncode, said in done.stderr) == (2 if said else 0, True)
    assert said or (tmp_path / "a.png").read_bytes() == direct("graph { a }", dpi=96.5)


def test_once(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "good.dot").write_text("digraph { a -> b }")
    (tmp_path / "bad.dot").write_text("digraph {")
    done = run(["dot-watch", "--once", "bad.dot", "good.dot", "circo", "72"], tmp_path)
    assert done.returncode == 1
    assert "bad.dot:\n    Error: bad.dot: syntax error" in done.stdout
    assert (tmp_path / "good.png").read_bytes() == direct("digraph { a -> b }", "circo", 72)
    assert run(["dot-watch", "--once", "good.dot"], tmp_path).returncode == 0
    (tmp_path / "none").mkdir()
    assert "no .dot or .gv file in none" in run(["dot-watch", "--once", "none"], tmp_path).stderr


def test_what_can_not_be_watched_is_said_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a.dot").touch()
    empty = {"PATH": str(tmp_path)}
    done = run(["dot-watch", "a.dot", "fdp"], tmp_path, **empty)
    assert (done.returncode, done.stderr) == (
        1,
        "dot-watch: there is no layout engine fdp on the PATH. Hint: apt-get install -y graphviz\n",
    )
    (tmp_path / "dot").write_text("#!/bin/sh\n")
    (tmp_path / "dot").chmod(0o755)
    done = run(["dot-watch", "nope.dot"], tmp_path, **empty)
    assert (done.returncode, done.stderr) == (1, "dot-watch: no such file: nope.dot. Hint: create it, or see `ls .`\n")
    done = run(["dot-watch", "a.dot"], tmp_path, DOT_WATCH_INTERVAL="soon")
    assert done.returncode == 78
    assert "DOT_WATCH_INTERVAL='soon'" in done.stderr
    assert run(["dot-watch"], tmp_path).returncode == 2
    assert run(["dot-watch", "a.dot", "99999"], tmp_path).returncode == 2


def test_a_mistyped_layout_and_a_link_to_nowhere(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "a.dot").touch()
    done = run(["dot-watch", "a.dot", "sfdp", "96"], tmp_path)
    assert done.returncode == 1
    assert "no such file: sfdp, and no such layout. Hint: one of dot, neato, fdp, circo, twopi; or" in done.stderr
    (tmp_path / "l.dot").symlink_to("gone.dot")
    done = run(["dot-watch", "l.dot"], tmp_path)
    assert (done.returncode, "l.dot is a link to gone.dot, which does not exist" in done.stderr) == (1, True)


def test_a_fifo_stops_nothing(tmp_path: Path, direct: Direct) -> None:
    os.mkfifo(tmp_path / "a.dot")
    (tmp_path / "b.dot").write_text("digraph { a }")
    (tmp_path / "c.dot").symlink_to("a.dot")
    done = run(["dot-watch", "--once", "."], tmp_path)
    assert done.returncode == 1
    assert "./b.dot -> ./b.png" in done.stdout
    with running(["dot-watch", "a.dot", "c.dot", "b.dot"], tmp_path, DOT_WATCH_INTERVAL="0.05") as program:
        program.says("b.dot -> b.png")
        program.says("can't read a.dot: not a regular file")
        program.says("can't read c.dot: not a regular file")


def test_a_file_s_name_drives_no_terminal(tmp_path: Path, direct: Direct) -> None:
    name = os.fsdecode(b"\x1b]0;x\x07\xff.dot")
    (tmp_path / name).write_text("digraph { a }")
    done = run(["dot-watch", "--once", name], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?]0;x??.dot -> ?]0;x??.png" in done.stdout
    done = run(["dot-watch", name + "x"], tmp_path)
    assert (done.returncode, "no such file: ?]0;x??.dotx" in done.stderr) == (1, True)
    (tmp_path / "å.dot").write_text("digraph { a }")
    done = run(["dot-watch", "--once", "å.dot"], tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, "?.dot -> ?.png" in done.stdout) == (0, True)


def test_a_file_is_one_however_it_is_called(tmp_path: Path, direct: Direct) -> None:
    (tmp_path / "a.dot").write_text("digraph { a }")
    (tmp_path / "b.dot").symlink_to("a.dot")
    argv = ["dot-watch", "a.dot", "./a.dot", str(tmp_path / "a.dot"), "."]
    done = run(["dot-watch", "--once", *argv[1:]], tmp_path)
    assert done.stdout.count(" -> ") == 2, "the link has a picture of its own"
    with running(argv, tmp_path, DOT_WATCH_INTERVAL="0.05") as program:
        program.says("./b.dot -> ./b.png")
        (tmp_path / "a.dot").unlink()
        program.says("a.dot is gone; waiting for it")
        (tmp_path / "a.dot").write_text("digraph { again }")
        program.says("a.dot -> a.png", times=2)
        assert program.said.count("a.dot is gone") == 1


def test_help_teaches(tmp_path: Path) -> None:
    done = run(["dot-watch", "--help"], tmp_path)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("Example:", "Exit codes:", "DOT_WATCH_INTERVAL", "neato"))
    assert run(["dot-watch", "--version"], tmp_path).stdout.startswith("dot-watch, version ")
