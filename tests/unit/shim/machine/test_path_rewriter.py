"""Which arguments name files, and what becomes of them on the way to a broker that runs elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.shim.machine.path_rewriter import make_absolute, paths_in, with_names
from tests.unit.shim.machine.dialogue import call

MINE = "mempalace_mine"


def line(source: Any, tool: str = MINE) -> bytes:
    return json.dumps(call(1, tool, source=source)).encode()


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("notes", "/work/dir/notes"),
        (".", "/work/dir"),
        ("./a//b/./c", "/work/dir/a/b/c"),
        ("../x", "/work/dir/../x"),  # the engine follows links, so it must see the step up
        ("~", "/home/u"),
        ("~/notes", "/home/u/notes"),
        ("/x://y", "/x://y"),
        ("1x://y", "/work/dir/1x:/y"),  # a scheme begins with a letter
        ("a b://y", "/work/dir/a b:/y"),
    ],
)
def test_a_path_is_made_absolute_by_name(path: str, absolute: str) -> None:
    message = rpc.parse(line(path))
    assert make_absolute(message, cwd="/work/dir/", home="/home/u") is (path != absolute)
    assert message.params["arguments"]["source"] == absolute


def test_at_the_root_of_everything() -> None:
    message = rpc.parse(line("."))
    assert make_absolute(message, cwd="/", home="/")
    assert message.params["arguments"]["source"] == "/"


@pytest.mark.parametrize("value", ["~other/x", "https://a/b", "git+ssh://a", "", "a\0b", 7, None])
def test_what_is_not_a_path_of_ours_stays(value: object) -> None:
    message = rpc.parse(line(value))
    assert not make_absolute(message, cwd="/work/dir", home="/home/u")
    assert message.params["arguments"]["source"] == value
    assert paths_in(line(value)) == []


def test_arguments_that_name_no_file_stay() -> None:
    assert paths_in(line("/a", tool="mempalace_search")) == []
    assert paths_in(b'{"id":1,"method":"tools/call","params":{"name":"mempalace_mine","arguments":[]}}') == []
    assert paths_in(line("/a")) == ["/a"]


def test_the_brokers_names_are_put_in_place() -> None:
    sent, refusal = with_names(line("/work/a"), {"/work/a": "/Users/me/a"})
    assert (json.loads(sent), refusal) == (json.loads(line("/Users/me/a")), "")


@pytest.mark.parametrize("names", [{}, {"/work/a": None}])
def test_a_path_without_a_name_there_is_refused_with_what_helps(names: dict[str, str | None]) -> None:
    sent, refusal = with_names(line("/work/a"), names)
    assert sent == b""
    assert "'/work/a' is a path of this container" in refusal
    assert "[container.paths]" in refusal
