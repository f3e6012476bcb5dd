"""Which texts a call will have embedded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.embedding_prefetch import texts_to_embed

SERVER = SimpleNamespace(
    sanitize_query=lambda q: {"clean_query": q.strip()},
    strip_lone_surrogates=lambda t: t.replace("\ud800", ""),
    sanitize_content=lambda t: t,
    _config=SimpleNamespace(chunk_size=4),
)


@pytest.mark.parametrize(
    ("tool", "arguments", "texts"),
    [
        ("search", {"query": " q "}, ["q"]),
        ("search", {"query": 5}, []),
        ("check_duplicate", {"content": "a\ud800"}, ["a"]),
        ("add_drawer", {"content": "abcdefghi"}, ["abcd", "efgh", "i"]),
        ("update_drawer", {"content": "abcd"}, ["abcd"]),
        ("update_drawer", {"wing": "w"}, []),
        ("diary_write", {"entry": "e"}, ["e"]),
        ("diary_write", {"content": "c"}, ["c"]),
        ("diary_write", {"content": "c", "entry": "e"}, ["e"]),
        ("status", {}, []),
    ],
)
def test_texts(tool: str, arguments: dict[str, Any], texts: list[str]) -> None:
    assert texts_to_embed(SERVER, f"mempalace_{tool}", arguments) == texts


def test_a_book_is_not_embedded_ahead_whole() -> None:
    assert len(texts_to_embed(SERVER, "mempalace_add_drawer", {"content": "x" * 10_000})) == 64


def test_no_tool_no_texts() -> None:
    assert texts_to_embed(SERVER, None, {}) == []
