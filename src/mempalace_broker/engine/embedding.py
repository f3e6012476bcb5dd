"""The embedding model: embed each text at its own length, remember it, and say at once when the model is missing.

chromadb's MiniLM pads every text to 256 tokens and masks the padding out again: a query of ten tokens costs as
much as a page. Embedded at its own length it has the same vector; that is tried on two texts before it is used.
"""

from __future__ import annotations

import copy
import importlib
import os
import shutil
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from .embed_cache import EmbedCache
from .tune_ups import DoesNotFit, TuneUp, Undo, fits, parameters, replace

if TYPE_CHECKING:
    from .adapter import Mempalace

_PROBES = ("note", "one writer for one palace, so that many coding agents share a memory without harm")
_TOLERANCE = 1e-6  # of one component; distances are answered with four decimals
_RETRY_S = 60.0
HINT = "mempalace-broker model install"


def minilm(mempalace: Mempalace) -> Any:
    """The embedding function in use if it is chromadb's MiniLM, else None."""
    embedding = mempalace.module("embedding")
    get = getattr(embedding, "get_embedding_function", None)
    if get is None:
        return None
    known = importlib.import_module("chromadb.utils.embedding_functions").ONNXMiniLM_L6_V2

    function = get()
    return function if isinstance(function, known) else None


# -- each text at its own length -----------------------------------------------------------------------


class OwnLength:
    """Embeds with the user's model, at each text's own length; a text's vector depends on nothing else."""

    def __init__(self, function: Any) -> None:

        self._np: Any = importlib.import_module("numpy")
        self._function = function
        self._stock = type(function)._forward
        self._proved = threading.Lock()
        self.state = "untried"  # then "proved" or a reason why not
        self.cache = EmbedCache(self.embed)

    def embed(self, text: str) -> Any:
        """Vector of one text: float32, one row as the stock function has it."""
        np, function = self._np, self._function
        encoded = function.tokenizer.encode(text)
        n = max(1, sum(encoded.attention_mask))
        ids = np.array([encoded.ids[:n]], dtype=np.int64)
        mask = np.array([encoded.attention_mask[:n]], dtype=np.int64)
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = function.model.run(None, fed)[0]
        wide = np.broadcast_to(np.expand_dims(mask, -1), hidden.shape)
        mean = np.sum(hidden * wide, 1) / np.clip(wide.sum(1), a_min=1e-9, a_max=None)
        return function._normalize(mean).astype(np.float32)[0]

    def prove(self) -> bool:
        """Compare with the stock function on two texts, once. Raises where the model can't be loaded."""
        with self._proved:
            if self.state == "untried":
                stock = self._stock(self._function, list(_PROBES))
                own = self._np.stack([self.embed(text) for text in _PROBES])
                same = own.shape == stock.shape and float(self._np.abs(own - stock).max()) <= _TOLERANCE
                self.state = "proved" if same else "this model's vectors depend on the padding"
            return self.state == "proved"

    def ahead(self, text: str) -> None:
        """Embed a text that will soon be asked for. Raises where the model can't be loaded."""
        if model_missing(self._function) is None and self.prove():
            self.cache.get(text)

    def forward(self, function: Any, documents: list[str], batch_size: int = 32) -> Any:
        """Stands in for `_forward`: rows of float32, one per document."""
        if function is not self._function or not documents or not self.prove():
            return self._stock(function, documents, batch_size)
        return self._np.stack([self.cache.get(text) for text in documents])


def apply_own_length(mempalace: Mempalace) -> Undo:
    """Embed at own length. See TuneUp.apply."""
    function = minilm(mempalace)
    fits(function is not None, "another embedding model is configured")
    cls = type(function)
    fits(parameters(cls._forward)[:2] == ["self", "documents"], "_forward is not what it was")
    fits(function._preferred_providers == ["CPUExecutionProvider"], "the model does not run on the CPU")
    own = OwnLength(function)
    if model_missing(function) is None:
        fits(own.prove(), own.state)

    def forward(self: Any, documents: list[str], batch_size: int = 32) -> Any:
        return own.forward(self, documents, batch_size)

    undo = replace(forward, (cls, "_forward"))
    mempalace.embed_ahead = own.ahead

    def undo_all() -> None:
        mempalace.embed_ahead = None
        undo()

    return undo_all


OWN_LENGTH = TuneUp(
    "own-length",
    "texts are embedded at their own length, each once",
    "upstream pads every text to 256 tokens: the same vector for up to ten times the time",
    apply_own_length,
)


# -- the model is missing ------------------------------------------------------------------------------


def model_missing(function: Any) -> str | None:
    """The directory that lacks a file of the model, None where all are there."""
    folder = os.path.join(str(function.DOWNLOAD_PATH), function.EXTRACTED_FOLDER_NAME)
    names = ("config.json", "model.onnx", "special_tokens_map.json", "tokenizer_config.json")
    for name in (*names, "tokenizer.json", "vocab.txt"):
        if not os.path.exists(os.path.join(folder, name)):
            return folder
    return None


class ModelGuard:
    """Fails an embedding at once while the model is missing, and fetches it aside as chromadb would.

    Upstream downloads 80 MB inside the first call that embeds: on a machine without a way out, or with a slow one,
    that call hangs until its limit, and the engine is replaced only to begin again.
    """

    def __init__(self, function: Any, download: Callable[[Any], None]) -> None:
        self._function = function
        self._download = download
        self._lock = threading.Lock()
        self._tried = float("-inf")
        self._busy = False
        self.state = "not tried yet"

    def check(self) -> None:
        """Stands in for `_download_model_if_not_exists`. Raises RuntimeError while the model is missing."""
        if model_missing(self._function) is None:
            return
        self.fetch()
        raise RuntimeError(
            f"the embedding model all-MiniLM-L6-v2 is missing in {self._function.DOWNLOAD_PATH} "
            f"(download: {self.state}). Hint: run `{HINT}`"
        )

    def fetch(self) -> None:
        """Begin to download it, unless that is under way or was tried a moment ago."""
        with self._lock:
            if self._busy or time.monotonic() - self._tried < _RETRY_S:
                return
            self._busy, self._tried, self.state = True, time.monotonic(), "under way"
        threading.Thread(target=self._fetch, name="engine-model", daemon=True).start()

    def _fetch(self) -> None:
        try:
            self._fetch_aside()
            self.state = "done"
        except Exception as exc:  # noqa: BLE001 - network, disk, archive: the state tells, calls go on failing
            self.state = f"failed, {type(exc).__name__}: {exc}"
            print(f"the embedding model can't be downloaded: {exc}", file=sys.stderr, flush=True)
        finally:
            self._busy = False

    def _fetch_aside(self) -> None:
        """Unpack it beside its place and move it in whole: nobody loads half a file."""
        base = str(self._function.DOWNLOAD_PATH)
        os.makedirs(base, exist_ok=True)
        aside = copy.copy(self._function)
        aside.DOWNLOAD_PATH = tempfile.mkdtemp(prefix=".fetch-", dir=base)
        try:
            self._download(aside)
            source = os.path.join(aside.DOWNLOAD_PATH, aside.EXTRACTED_FOLDER_NAME)
            target = os.path.join(base, aside.EXTRACTED_FOLDER_NAME)
            os.makedirs(target, exist_ok=True)
            for name in os.listdir(source):
                os.replace(os.path.join(source, name), os.path.join(target, name))
        finally:
            shutil.rmtree(aside.DOWNLOAD_PATH, ignore_errors=True)


def guard_model(mempalace: Mempalace) -> dict[str, str] | None:
    """Install the guard; return what is degraded, None where the model is there or is not MiniLM.

    No tune-up: it is in force with tune-ups switched off, too.
    """
    function = minilm(mempalace)
    if function is None:
        return None
    cls = type(function)
    download = getattr(cls, "_download_model_if_not_exists", None)
    if download is None or model_missing(function) is None:
        return None
    guard = ModelGuard(function, download)
    replace(guard.check, (cls, "_download_model_if_not_exists"))
    guard.fetch()
    what = f"the embedding model is missing in {model_missing(function)}: search and new drawers fail"
    return {"what": what, "hint": HINT}


__all__ = ["OWN_LENGTH", "DoesNotFit", "guard_model", "model_missing"]
