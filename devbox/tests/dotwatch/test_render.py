"""From DOT to a picture on disk: exact, complete, or a readable error."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pi_devbox.dotwatch import render
from pi_devbox.dotwatch.render import LAYOUTS, Drawing, Failed, publish, readable
from tests.proctools import children_of, eventually

PNG = Drawing("dot", 150, "png", 30.0)


def one(drawing: Drawing, name: str, text: bytes) -> tuple[bytes, str]:
    """Draw a file with one graph."""
    (picture,), said = render.Run(drawing, name, text).pictures()
    return picture, said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_picture_is_what_the_engine_makes_itself(layout: str, direct: Callable[..., bytes]) -> None:
    text = 'digraph { a -> b -> c -> a; label="å" }'
    drawing = Drawing(layout, 96, "png", 30.0)
    assert one(drawing, "x.dot", text.encode()) == (direct(text, layout, 96), "")


def test_an_error_names_the_file_and_its_line(direct: Callable[..., bytes]) -> None:
    with pytest.raises(Failed, match=r"graph\.dot: syntax error in line 2 near '-'"):
        one(PNG, "/tmp/graph.dot", b"digraph {\n a - b }")


def test_a_warning_comes_with_the_picture(direct: Callable[..., bytes]) -> None:
    picture, said = one(PNG, "a.dot", b"digraph { a:nowhere -> b }")
    assert picture.startswith(b"\x89PNG")
    assert "nowhere" in said


@pytest.mark.parametrize("text", [b"", b" \n\t", b"// only a comment\n"])
def test_an_empty_status_does_not_break_the_view(text: bytes, direct: Callable[..., bytes]) -> None:
    with pytest.raises(Failed, match=r"is empty|no graph"):
        one(PNG, "a.dot", text)


def test_an_engine_that_takes_too_long_is_ended(direct: Callable[..., bytes]) -> None:
    edges = " ".join(f"{a} -> {b};" for a in range(60) for b in range(60))
    with pytest.raises(Failed, match=r"dot took longer than 0\.2 s \(--limit\), and was ended"):
        one(Drawing("dot", 150, "png", 0.2), "a.dot", f"digraph {{ {edges} }}".encode())


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(Failed, match=r"no-such-engine can't be run"):
        one(Drawing("no-such-engine", 150, "png", 1.0), "a.dot", b"digraph {}")


def test_what_an_engine_says_can_not_drive_a_terminal_or_fill_it() -> None:
    assert readable(b"Error: /t/graph: near '\x1b[31m\xff'\n\n", "/t/graph", "d/a.dot") == "Error: a.dot: near '?[31m�'"
    lines = readable(b"x\n" * 25, "/t", "a").splitlines()
    assert (len(lines), lines[-1]) == (21, "... 5 more lines")


def test_a_picture_is_replaced_whole_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    before = os.umask(0o027)
    try:
        publish(str(path), b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    with path.open("rb") as open_before:
        publish(str(path), b"two")
        assert open_before.read() == b"one"
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_link_to_a_picture_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "a.png"
    link.symlink_to("far/a.png")
    publish(str(link), b"x")
    assert link.is_symlink()
    assert (tmp_path / "far/a.png").read_bytes() == b"x"


def test_a_picture_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"can't write to .*nowhere: No such file"):
        publish(str(tmp_path / "nowhere" / "a.png"), b"x")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(Failed, match=r"can't write .*a\.png: "):
        publish(str(tmp_path / "a.png"), b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_where_a_picture_goes() -> None:
    names = ["a.dot", "d/a.gv", "b", "a.gv.dot"]
    assert [PNG.picture_of(name) for name in names] == ["a.png", "d/a.gv.png", "b.png", "a.gv.dot.png"]
    assert [PNG.picture_of(name, 2) for name in names[:2]] == ["a.dot.2.png", "d/a.gv.2.png"]


def test_each_graph_of_a_file_has_a_picture(direct: Callable[..., bytes]) -> None:
    pictures, _ = render.Run(PNG, "a.dot", b"digraph { a } digraph { b } graph { c }").pictures()
    assert pictures == [direct(text) for text in ("digraph { a }", "digraph { b }", "graph { c }")]


def test_a_drawing_that_is_ended(direct: Callable[..., bytes], tmp_path: Path) -> None:
    text = f"digraph {{ {' '.join(f'{a} -> {b};' for a in range(60) for b in range(60))} }}".encode()
    run = render.Run(Drawing("dot", 150, "png"), "a.dot", text)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run.pictures)
        eventually(lambda: children_of(os.getpid()), what="the engine")
        run.end()
        with pytest.raises(Failed):
            future.result(10)
    run = render.Run(PNG, "a.dot", text)
    run.end()
    with pytest.raises(Failed, match="before it began"):
        run.pictures()


def test_a_folder_stands_for_the_graphs_in_it(tmp_path: Path) -> None:
    for name in ("b.gv", "a.dot", "c.txt", ".hidden.dot"):
        (tmp_path / name).touch()
    (tmp_path / "folder.dot").mkdir()
    folder = str(tmp_path)
    assert render.sources([folder, f"{folder}/a.dot", "x.dot"], {folder}) == [
        f"{folder}/a.dot",
        f"{folder}/b.gv",
        "x.dot",
    ]
