"""The guard of a missing model: calls fail at once, and say how far its download is."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from mempalace_broker.engine import model_guard
from mempalace_broker.engine.model_guard import ModelGuard
from tests.proctools import eventually


def test_a_call_fails_at_once_and_says_how_far_the_download_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_guard, "model_missing", lambda _function: str(tmp_path / "onnx"))
    there, go_on = threading.Event(), threading.Event()

    def download(function: SimpleNamespace) -> None:
        with open(Path(function.DOWNLOAD_PATH, "onnx.tar.gz"), "wb") as file:
            file.truncate(31_500_000)
        there.set()
        go_on.wait(60)
        Path(function.DOWNLOAD_PATH, "onnx").mkdir()
        Path(function.DOWNLOAD_PATH, "onnx", "model.onnx").write_bytes(b"x")

    guard = ModelGuard(SimpleNamespace(DOWNLOAD_PATH=str(tmp_path), EXTRACTED_FOLDER_NAME="onnx"), download)
    guard.fetch()
    assert there.wait(60)
    with pytest.raises(RuntimeError, match=r"download: under way, 31 of about 80 MB\)\. Hint: run"):
        guard.check()
    go_on.set()
    eventually(lambda: guard.state == "done", what="the end of the download")
    assert (tmp_path / "onnx" / "model.onnx").exists()
    with pytest.raises(RuntimeError, match=r"\(download: done\)"):
        guard.check()
