"""A bounded cache of text embeddings, which a prefetch can fill before a call's turn.

A text's vector must not depend on what was embedded beside it, so that a cached vector equals a computed one:
`compute` takes one text.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Callable

MAX_TEXT = 16_384  # characters; longer texts are not cached


class EmbeddingCache:
    """Text -> vector, least recently used out first. A text under way is waited for, not computed twice.

    Args:
        compute: embeds one text; pure, and safe on several threads.
        size: how many vectors to keep; `keep` changes it.
    """

    def __init__(self, compute: Callable[[str], Any], size: int = 1024) -> None:
        self._compute = compute
        self._size = self._least = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Any] = OrderedDict()
        self._under_way: dict[str, threading.Event] = {}

    def keep(self, size: int) -> None:
        """Keep so many vectors from now on, and never fewer than at first."""
        with self._lock:
            self._size = max(self._least, size)
            self._drop_oldest()

    def get(self, text: str) -> Any:
        """The vector of `text`. Raises whatever `compute` raises; a failure is not cached."""
        if len(text) > MAX_TEXT:
            return self._compute(text)
        while True:
            with self._lock:
                if text in self._vectors:
                    self._vectors.move_to_end(text)
                    return self._vectors[text]
                done = self._under_way.get(text)
                if done is None:
                    self._under_way[text] = threading.Event()
            if done is None:
                return self._fill(text)
            done.wait()

    def _fill(self, text: str) -> Any:
        try:
            vector = self._compute(text)
            with self._lock:
                self._vectors[text] = vector
                self._drop_oldest()
            return vector
        finally:
            with self._lock:
                self._under_way.pop(text).set()

    def _drop_oldest(self) -> None:
        while len(self._vectors) > self._size:
            self._vectors.popitem(last=False)
