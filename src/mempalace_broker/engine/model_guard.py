"""The embedding model: report a missing one at once, and fetch it in the background.

Upstream downloads 80 MB inside the first call that embeds: on a machine without network, or with a slow one, that call
hangs until its limit, and the engine is replaced only to begin again.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from .minilm import minilm, model_missing

if TYPE_CHECKING:
    from .adapter import Mempalace

_RETRY_S = 60.0
_HINT = "mempalace-broker model install --real-home"


class ModelGuard:
    """Fails an embedding at once while the model is missing, and downloads it meanwhile."""

    def __init__(self, function: Any, download: Callable[[Any], None]) -> None:
        self._function = function
        self._download = download
        self._lock = threading.Lock()
        self._tried_at = float("-inf")
        self._busy = False
        self._aside = ""
        self.state = "not tried yet"

    def check(self) -> None:
        """Stand in for `_download_model_if_not_exists`. Raises RuntimeError while the model is missing."""
        if model_missing(self._function) is None:
            return
        self.fetch()
        raise RuntimeError(
            f"the embedding model all-MiniLM-L6-v2 is missing in {self._function.DOWNLOAD_PATH} "
            f"(download: {self.state}{self._so_far()}). Hint: run `{_HINT}`"
        )

    def fetch(self) -> None:
        """Start the download, unless one is under way or was tried within the last minute."""
        with self._lock:
            if self._busy or time.monotonic() - self._tried_at < _RETRY_S:
                return
            self._busy, self._tried_at, self.state = True, time.monotonic(), "under way"
        threading.Thread(target=self._fetch, name="engine-model", daemon=True).start()

    def _fetch(self) -> None:
        try:
            self._fetch_aside()
            self.state = "done"
        except Exception as exc:  # noqa: BLE001 - network, disk, archive: `state` reports it, calls go on failing
            self.state = f"failed, {type(exc).__name__}: {exc}"
            print(f"the embedding model can't be downloaded: {exc}", file=sys.stderr, flush=True)
        finally:
            self._busy = False

    def _so_far(self) -> str:
        """Return how far a download is, for messages; "" if none is under way."""
        try:
            sizes = [entry.stat().st_size for entry in os.scandir(self._aside)] if self._busy and self._aside else []
        except OSError:  # it has just ended
            return ""
        return f", {max(sizes) // 1_000_000} of about 80 MB" if sizes else ""

    def _fetch_aside(self) -> None:
        """Unpack the model in a folder beside its place and move it in file by file: nobody loads half a file."""
        base = str(self._function.DOWNLOAD_PATH)
        os.makedirs(base, exist_ok=True)
        aside = copy.copy(self._function)
        aside.DOWNLOAD_PATH = self._aside = tempfile.mkdtemp(prefix=".fetch-", dir=base)
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
    """Install the guard if MiniLM is in use and missing; return the warning, None if nothing is missing.

    Not a tune-up: it is in force with tune-ups switched off, too.
    """
    function = minilm(mempalace.module("embedding"))
    if function is None:
        return None
    cls = type(function)
    download = getattr(cls, "_download_model_if_not_exists", None)
    folder = model_missing(function)
    if download is None or folder is None:
        return None
    guard = ModelGuard(function, download)
    cls._download_model_if_not_exists = guard.check
    guard.fetch()
    return {"what": f"the embedding model is missing in {folder}: search and new drawers fail", "hint": _HINT}
