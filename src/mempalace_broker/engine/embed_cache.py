"""A bounded memory of embedded texts, filled ahead of a call's turn.

A text's vector must not depend on what was embedded beside it, so that a remembered vector is the very one that
would be computed: `compute` takes one text.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Callable

_MAX_TEXT = 16_384  # characters of a text worth remembering


class EmbedCache:
    """text -> vector, least recently used out first; a text under way is waited for, not computed twice.

    Args:
        compute: embeds one text; pure, and safe on several threads.
        size: how many vectors to remember.
    """

    def __init__(self, compute: Callable[[str], Any], size: int = 1024) -> None:
        self._compute = compute
        self._size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._under_way: dict[str, threading.Event] = {}
        self.hits = 0
        self.misses = 0

    def get(self, text: str) -> Any:
        """The vector of `text`. Raises what `compute` raises; a failure is not remembered."""
        if len(text) > _MAX_TEXT:
            return self._compute(text)
        while True:
            with self._lock:
                if text in self._known:
                    self._known.move_to_end(text)
                    self.hits += 1
                    return self._known[text]
                event = self._under_way.get(text)
                if event is None:
                    self._under_way[text] = threading.Event()
                    self.misses += 1
            if event is None:
                return self._fill(text)
            event.wait()

    def _fill(self, text: str) -> Any:
        try:
            vector = self._compute(text)
            with self._lock:
                self._known[text] = vector
                if len(self._known) > self._size:
                    self._known.popitem(last=False)
            return vector
        finally:
            with self._lock:
                self._under_way.pop(text).set()
