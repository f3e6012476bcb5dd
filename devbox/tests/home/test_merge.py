"""Merging the files of a new image with the user's changes to those of an older one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.home.merge import Merged, merge, merge_file

SHIM = {"mcpServers": {"mempalace": {"command": "mp-shim"}}}


@pytest.mark.parametrize(
    ("brought", "own", "new", "text"),
    [
        (None, None, "new", "new"),
        (None, "own", "new", None),
        ("old", "old", "new", "new"),
        ("old", "own", "new", None),
        ("old", "own", "old", None),
        ("old", "new", "new", None),
        ("old", None, "new", None),
    ],
)
def test_a_plain_file(brought: str | None, own: str | None, new: str, text: str | None) -> None:
    merged = merge_file(".npmrc", brought, own, new)
    assert (merged.text, merged.settled) == (text, True)
    assert bool(merged.note) == (own == "own" and new != brought), "both changed it"


@pytest.mark.parametrize(
    ("brought", "own", "new", "result"),
    [
        # added by the image, by the user
        ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"x": {}}, {"x": {"mine": 1}}, {"x": {"theirs": 1}}, {"x": {"mine": 1, "theirs": 1}}),
        # changed by the image, by the user, by both
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": 3}, {"a": 2}, {"a": 3}),
        ({"a": 1}, {"a": True}, {"a": 1}, {"a": True}),
        # removed by the image, by the user, by one of them from what the other has changed
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"b": 1}, {"b": 1}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),
        ({"a": 1}, {}, {"a": 2}, {}),
        # lists of packages are sets, others are one piece
        ({"packages": ["p"]}, {"packages": ["p", "mine"]}, {"packages": ["p", "q"]}, {"packages": ["p", "mine", "q"]}),
        ({"packages": ["p", "q"]}, {"packages": ["q"]}, {"packages": ["p", "q", "r"]}, {"packages": ["q", "r"]}),
        ({"packages": ["p", "q"]}, {"packages": ["q", "p", "x"]}, {"packages": ["p"]}, {"packages": ["p", "x"]}),
        ({"args": ["a"]}, {"args": ["a", "mine"]}, {"args": ["a", "theirs"]}, {"args": ["a", "mine"]}),
        # another shape
        ({"a": {}}, {"a": [1]}, {"a": {"b": 1}}, {"a": [1]}),
    ],
)
def test_json(brought: Any, own: Any, new: Any, result: Any) -> None:
    assert json.dumps(merge(brought, own, new)) == json.dumps(result)


def test_a_home_of_an_image_that_left_no_manifest() -> None:
    own = json.dumps({"mcpServers": {"mine": {}, "mempalace": {"command": "my-shim"}}, "packages": ["/opt/mine"]})
    new = json.dumps({**SHIM, "packages": ["/opt/pi-studio"], "theme": "dark"})
    text = merge_file("settings.json", None, own, new).text
    assert text is not None
    assert json.loads(text) == {
        "mcpServers": {"mine": {}, "mempalace": {"command": "my-shim"}},
        "packages": ["/opt/mine", "/opt/pi-studio"],
        "theme": "dark",
    }


@pytest.mark.parametrize("own", ["", "{", "mine", '{"a": 1e999}', "[" * 100_000, '{"a": "\udcff"}', "// c\n{}"])
def test_json_that_is_not_plain_is_kept_and_named_until_it_is(own: str) -> None:
    merged = merge_file("a.json", "{}", own, json.dumps(SHIM))
    assert (merged.text, merged.settled) == (None, False)
    assert "is not plain JSON" in merged.note


def test_a_file_with_comments_that_lacks_nothing_is_not_named() -> None:
    own = '{ // "mine\n "url": "http://x/*y*/", /* , } */ "mcpServers": {"mempalace": {"command": "mp-shim",},},\n}'
    assert merge_file("a.json", None, own, json.dumps(SHIM)) == Merged(None)


def test_a_record_that_is_not_json_counts_as_none() -> None:
    assert merge_file("a.json", "{", '{"a": 1}', '{"b": 2}') == merge_file("a.json", None, '{"a": 1}', '{"b": 2}')


def test_what_is_written_has_the_user_s_order_and_letters() -> None:
    merged = merge_file("a.json", "{}", '{"z": "å", "a": [1]}', json.dumps(SHIM))
    assert merged.text is not None
    assert merged.text.startswith('{\n  "z": "å",\n  "a": [\n    1\n  ],\n  "mcpServers": ')


scalars = st.sampled_from([None, True, 0, 1, "x"])
keys = st.sampled_from(["a", "b", "packages"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(keys, values, max_size=3)


@given(objects, objects, objects)
def test_laws_of_the_merge(brought: Any, own: Any, new: Any) -> None:
    before = copy.deepcopy((brought, own, new))
    merged = merge(brought, own, new)
    assert (brought, own, new) == before
    same = [json.dumps(one, sort_keys=True) for one in (merge(brought, merged, new), merged)]
    assert same[0] == same[1], "done again after a kill, it changes nothing"
    assert merge(brought, own, brought) == own, "an image that brings nothing new changes nothing"
    assert merge(brought, brought, new) == new, "a file that the user did not touch becomes the new one"
    assert merge(new, merged, new) == merged
