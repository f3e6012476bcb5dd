"""Embeds each text at its own length, and each text once.

chromadb's MiniLM pads every text to 256 tokens and masks the padding out again: a query of ten tokens costs as much as
a page. Embedded at its own length, a text has the same vector; two texts prove that before it is used.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

from .embedding_cache import MAX_TEXT, EmbeddingCache
from .minilm import model_missing

_SAMPLES = ("note", "one writer for one palace, so that many coding agents share a memory without harm")
_PADDED = 32  # tokens: masked padding has the same effect whatever its length, and 256 take ten times as long
_SPARE = 64  # vectors of other calls that come meanwhile
_TOLERANCE = 1e-6  # of one component; distances are answered with four decimals


class OwnLength:
    """Embeds with the user's model, each text at its own length; a text's vector depends on nothing else.

    Args:
        function: mempalace's embedding function, not changed yet.
    """

    def __init__(self, function: Any) -> None:
        self._np: Any = importlib.import_module("numpy")
        self.function = function
        self._stock = type(function)._forward
        self._proving = threading.Lock()
        self._proved: bool | None = None  # None: not tried yet
        self._cache = EmbeddingCache(self._embed)

    def _embed(self, text: str) -> Any:
        """Vector of one text: float32, one row as the stock function has it."""
        np, function = self._np, self.function
        encoded = function.tokenizer.encode(text)
        n = max(1, sum(encoded.attention_mask))
        ids = np.array([encoded.ids[:n]], dtype=np.int64)
        mask = np.array([encoded.attention_mask[:n]], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = function.model.run(None, inputs)[0]
        wide = np.broadcast_to(np.expand_dims(mask, -1), hidden.shape)
        mean = np.sum(hidden * wide, 1) / np.clip(wide.sum(1), a_min=1e-9, a_max=None)
        return function._normalize(mean).astype(np.float32)[0]

    def prove(self) -> bool:
        """Compare with the stock function on two texts, once. Raises whatever loading the model raises."""
        with self._proving:
            if self._proved is None:
                with _padded_to(self.function.tokenizer, _PADDED):
                    stock = self._stock(self.function, list(_SAMPLES))
                own = self._np.stack([self._embed(text) for text in _SAMPLES])
                self._proved = own.shape == stock.shape and float(self._np.abs(own - stock).max()) <= _TOLERANCE
            return self._proved

    def prefetch(self, text: str) -> None:
        """Embed a text that a call will soon ask for. Raises whatever loading the model raises."""
        if len(text) <= MAX_TEXT and model_missing(self.function) is None and self.prove():
            self._cache.get(text)

    def keep(self, texts: int) -> None:
        """Keep the vectors of so many texts, or of more."""
        self._cache.keep(texts + _SPARE)

    def forward(self, function: Any, documents: list[str], batch_size: int = 32) -> Any:
        """Stand in for `_forward`: rows of float32, one per document."""
        if function is not self.function or not documents or not self.prove():
            return self._stock(function, documents, batch_size)
        return self._np.stack([self._cache.get(text) for text in documents])


@contextlib.contextmanager
def _padded_to(tokenizer: Any, length: int) -> Iterator[None]:
    """Let a tokenizer that pads to some fixed length pad to another one within the block."""
    usual = dict(tokenizer.padding or {})
    if not isinstance(usual.get("length"), int):
        yield
        return
    tokenizer.enable_padding(**{**usual, "length": length})
    try:
        yield
    finally:
        tokenizer.enable_padding(**usual)
