"""Loads chromadb's MiniLM while chromadb itself is imported.

That is onnxruntime making an inference session: 0.2 s of processor time, which keep no other thread from running.
chromadb gets the session where it asks for one of the same file, with the same providers and options; otherwise it
makes its own.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any

from .minilm import FOLDER

_MODEL = os.path.join(".cache", "chroma", FOLDER, "onnx", "model.onnx")
_PROVIDERS = ["CPUExecutionProvider"]


class EarlyModel:
    """One inference session, made ahead on a thread of its own.

    Attributes:
        unused: why it is not in use; "" if it is.
    """

    def __init__(self) -> None:
        self._path = os.path.join(os.path.expanduser("~"), _MODEL)
        self.unused = "another embedding model is configured"
        self._ort: Any = None
        self._threads = 0
        self._made: tuple[Any, dict[str, Any]] | None = None  # the session, and the options that it has
        self._thread = threading.Thread(target=self._make, name="engine-early-model", daemon=True)

    def start(self, config: Any) -> None:
        """Begin, if mempalace is configured to use this model and the model is there. Call it once.

        The imports are done here: two threads that import numpy at once can fail.
        """
        if config.embedding_model != "minilm":
            return
        self.unused = f"the model is missing in {os.path.dirname(self._path)}"
        if not os.path.exists(self._path):
            return
        self._threads = max(0, int(getattr(config, "embedding_threads", 0)))
        self._ort = importlib.import_module("onnxruntime")
        self._thread.start()

    def hand_over(self, function: Any) -> None:
        """Let chromadb's embedding function have its session from here, if it would make the same one.

        Raises:
            Exception: whatever making another session raised.
        """
        made = self.let_go()
        if made is None or getattr(function, "ort", None) is not self._ort:
            return
        function.ort = _Runtime(self._ort, self._path, *made)
        try:
            if function.model is made[0]:  # it is made when it is first asked for
                self.unused = ""
        finally:
            function.ort = self._ort

    def let_go(self) -> tuple[Any, dict[str, Any]] | None:
        """Forget the session, which takes much memory, and return it with its options; None if there is none."""
        if self._thread.ident is None:
            return None
        self._thread.join()
        self.unused = "mempalace makes another session"
        made, self._made = self._made, None
        return made

    def _make(self) -> None:
        try:
            options = self._ort.SessionOptions()
            options.log_severity_level = 3
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.intra_op_num_threads = self._threads
            session = self._ort.InferenceSession(self._path, sess_options=options, providers=list(_PROVIDERS))
            self._made = session, _values(options)
        except Exception as exc:  # noqa: BLE001 - chromadb tries again, and says what is wrong
            print(f"the model is not loaded ahead: {exc}", file=sys.stderr, flush=True)


class _Runtime:
    """Stands for onnxruntime while an embedding function makes its session."""

    def __init__(self, stock: Any, path: str, session: Any, options: dict[str, Any]) -> None:
        self._stock, self._path, self._session, self._options = stock, path, session, options
        self.SessionOptions = _watched(stock.SessionOptions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def InferenceSession(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the session made ahead where it is the one that is asked for, else a new one."""
        if path == self._path and not args and set(kwargs) == {"providers", "sess_options"}:
            options = kwargs["sess_options"]
            comparable = isinstance(options, self.SessionOptions) and not options.is_called
            if kwargs["providers"] == _PROVIDERS and comparable and _values(options) == self._options:
                return self._session
        return self._stock.InferenceSession(path, *args, **kwargs)


def _watched(stock: Any) -> Any:
    class SessionOptions(stock):  # type: ignore[misc]
        """Notes whether a method was called: what that sets can't be read, and so not compared."""

        is_called = False

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if callable(found) and not name.startswith("_"):
                self.is_called = True
            return found

    return SessionOptions


def _values(options: Any) -> dict[str, Any]:
    """The values of all options, by name."""
    found = {name: getattr(options, name) for name in dir(options) if not name.startswith("_") and name != "is_called"}
    return {name: value for name, value in found.items() if not callable(value)}
