"""The cache of embeddings: each text is computed once, the size is bounded, failures are not cached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.engine.embedding_cache import EmbeddingCache


@given(st.lists(st.text(max_size=3)), st.integers(1, 4))
def test_it_answers_what_compute_answers(texts: list[str], size: int) -> None:
    cache = EmbeddingCache(lambda text: text * 2, size)
    assert [cache.get(text) for text in texts] == [text * 2 for text in texts]


def test_the_least_recently_used_goes_first() -> None:
    seen: list[str] = []
    cache = EmbeddingCache(seen.append, size=2)
    for text in "abacab":
        cache.get(text)
    assert seen == ["a", "b", "c", "b"]


def test_more_are_kept_for_a_while_and_never_fewer_than_at_first() -> None:
    seen: list[str] = []
    cache = EmbeddingCache(seen.append, size=2)
    cache.keep(3)
    for text in "abcabc":
        cache.get(text)
    cache.keep(0)
    for text in "cba":
        cache.get(text)
    assert seen == ["a", "b", "c", "a"]


def test_a_text_that_is_being_embedded_is_waited_for() -> None:
    begun, gate, calls = threading.Event(), threading.Event(), []

    def compute(text: str) -> str:
        calls.append(text)
        begun.set()
        assert gate.wait(10)
        return text.upper()

    cache = EmbeddingCache(compute)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(cache.get, "x")
        assert begun.wait(10)
        others = [pool.submit(cache.get, "x") for _ in range(2)]
        gate.set()
        assert {f.result(10) for f in [first, *others]} == {"X"}
    assert calls == ["x"]


def test_a_failure_is_not_remembered() -> None:
    answers: Iterator[Exception | str] = iter([ValueError("no model"), "vector"])

    def compute(_: str) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = EmbeddingCache(compute)
    with pytest.raises(ValueError, match="no model"):
        cache.get("x")
    assert cache.get("x") == "vector"


def test_long_texts_are_not_remembered() -> None:
    seen: list[int] = []
    cache = EmbeddingCache(lambda text: seen.append(len(text)))
    for _ in range(2):
        cache.get("x" * 20_000)
    assert seen == [20_000, 20_000]
