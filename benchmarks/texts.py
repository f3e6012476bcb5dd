"""Texts for benchmarks: words of the model's own vocabulary in random order, the same for the same seed."""

from __future__ import annotations

import functools
import random

from benchmarks.common import model

LENGTHS = (12, 25, 40, 60)  # words of a note


@functools.cache
def vocabulary() -> tuple[str, ...]:
    lines = (model() / "onnx" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return tuple(word for word in lines if word.isalpha() and word.isascii() and len(word) > 4)


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(vocabulary(), k=count))


def notes(count: int, seed: int = 7) -> list[str]:
    """`count` notes; the first ones are the same for every count."""
    rng = random.Random(seed)
    return [f"note {i}: {words(rng, rng.choice(LENGTHS))}" for i in range(count)]


def queries(count: int, seed: int = 11) -> list[str]:
    """Questions of some words, all different."""
    rng = random.Random(seed)
    return [words(rng, rng.choice((4, 6, 8))) for _ in range(count)]
