"""A write is answered once the drive has it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.engine import power_safety
from mempalace_broker.engine.power_safety import PowerSafety
from mempalace_broker.system import darwin, kernel


def of(palace: str, graph: str | None, journal: str | None, *, wanted: bool = True) -> PowerSafety:
    options = SimpleNamespace(power_safe=wanted)
    mempalace = SimpleNamespace(options=options, palace_path=lambda: palace, graph_path=lambda: graph)
    return PowerSafety(cast(Any, mempalace), journal)


def test_each_volume_is_flushed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(power_safety, "sync_volume", flushed.append)
    (tmp_path / "palace").mkdir()
    palace, journal = str(tmp_path / "palace"), str(tmp_path / "broker.journal")
    assert of(palace, "/proc/graph", journal).confirm({"id": 1}, "x") is None
    assert sorted(flushed) == ["/proc", str(tmp_path)]
    assert of(str(tmp_path / "not there"), None, None).confirm({"id": 1}, "x") is None
    assert of(palace, palace + "/graph", journal, wanted=False).confirm({"id": 1}, "x") is None
    assert len(flushed) == 2


def test_what_the_disk_does_not_confirm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: str) -> None:
        raise OSError(5, os.strerror(5), folder)

    monkeypatch.setattr(power_safety, "sync_volume", refuse)
    answer = of(str(tmp_path), None, None).confirm({"id": 7}, "mempalace_add_drawer")
    assert answer is not None
    assert answer["id"] == 7
    assert "mempalace_add_drawer was executed, but the disk did not" in answer["error"]["message"]
    assert "Input/output error" in capfd.readouterr().err


def test_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.sync_volume(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        kernel.sync_volume(str(tmp_path / "not there"))
    asked: list[str] = []
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(darwin, "sync_volume", asked.append)
    kernel.sync_volume("/p")
    assert asked == ["/p"]
