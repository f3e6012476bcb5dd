"""chromadb's MiniLM: whether it is in use, and whether its files are there."""

from __future__ import annotations

import importlib
import os
from typing import Any

FOLDER = os.path.join("onnx_models", "all-MiniLM-L6-v2")  # in chromadb's cache
_FILES = (
    "config.json",
    "model.onnx",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
)


def minilm(embedding: Any) -> Any:
    """The embedding function in use if it is chromadb's MiniLM, else None. `embedding`: mempalace's module."""
    get = getattr(embedding, "get_embedding_function", None)
    if get is None:
        return None
    known = importlib.import_module("chromadb.utils.embedding_functions").ONNXMiniLM_L6_V2
    function = get()
    return function if isinstance(function, known) else None


def model_missing(function: Any) -> str | None:
    """The folder that lacks a file of the model; None if the model is complete."""
    folder = os.path.join(str(function.DOWNLOAD_PATH), function.EXTRACTED_FOLDER_NAME)
    return None if all(os.path.exists(os.path.join(folder, name)) for name in _FILES) else folder
