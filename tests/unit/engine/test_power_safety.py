"""A write is answered once the drive has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.engine import power_safety
from mempalace_broker.engine.power_safety import PowerSafety
from mempalace_broker.system import darwin, kernel


def test_each_volume_is_flushed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(power_safety, "sync_volume", flushed.append)
    (tmp_path / "palace").mkdir()
    (tmp_path / "root").mkdir()
    places = [str(tmp_path / "palace"), str(tmp_path / "root"), str(tmp_path / "not there"), "/proc"]
    assert PowerSafety(places).confirm() == ""
    assert sorted(flushed) == ["/proc", str(tmp_path / "root")]
    assert PowerSafety([]).confirm() == ""


def test_what_the_disk_does_not_confirm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: str) -> None:
        raise OSError(5, os.strerror(5), folder)

    monkeypatch.setattr(power_safety, "sync_volume", refuse)
    assert "Input/output error" in PowerSafety([str(tmp_path)]).confirm()
    assert "power_safe: the disk did not confirm it" in capfd.readouterr().err


def test_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.sync_volume(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        kernel.sync_volume(str(tmp_path / "not there"))
    asked: list[str] = []
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(darwin, "sync_volume", asked.append)
    kernel.sync_volume("/p")
    assert asked == ["/p"]
