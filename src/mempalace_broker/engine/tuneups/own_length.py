"""Has each text embedded at its own length: see engine/own_length.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..minilm import minilm, model_missing
from ..own_length import OwnLength
from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace


def _apply(mempalace: Mempalace) -> None:
    function = minilm(mempalace.module("embedding"))
    require(function is not None, "another embedding model is configured")
    cls = type(function)
    require(parameters(cls._forward)[:2] == ["self", "documents"], "_forward is not what it was")
    require(function._preferred_providers == ["CPUExecutionProvider"], "the model does not run on the CPU")
    ahead = mempalace.model.own_length if mempalace.model is not None else None
    own = ahead if ahead is not None and ahead.function is function else OwnLength(function)
    if model_missing(function) is None:
        require(own.prove(), "this model's vectors depend on the padding")

    def forward(self: Any, documents: list[str], batch_size: int = 32) -> Any:
        return own.forward(self, documents, batch_size)

    replace(forward, "_forward", cls)
    mempalace.prefetch_embedding, mempalace.keep_embeddings = own.prefetch, own.keep


OWN_LENGTH = TuneUp(
    "own-length",
    "texts are embedded at their own length, each once",
    "upstream pads every text to 256 tokens: the same vector for up to ten times the time",
    _apply,
    any_backend=True,
)
