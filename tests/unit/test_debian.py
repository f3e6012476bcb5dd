"""dev.py's Debian packages: only the missing ones, only where that is possible, and with a time limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dev


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands that would have been run; the package of "no-such-thing" is "thing"."""
    commands: list[str] = []
    monkeypatch.setattr(dev, "DEV", tmp_path)
    monkeypatch.setattr(dev, "DEBIAN", {"sh": "dash", "no-such-thing": "thing"})
    monkeypatch.setattr(dev, "run_logged", lambda log, *argv: commands.append(" ".join(argv)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return commands


def test_installs_what_is_missing_and_nothing_else(ran: list[str]) -> None:
    dev.offer_debian(["sh", "no-such-thing"])
    assert len(ran) == 2
    assert ran[0].startswith("apt-get update")
    assert ran[1].endswith(" --no-install-recommends thing")


def test_does_nothing_where_all_is_there(ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    dev.offer_debian(["sh"])
    assert (ran, capsys.readouterr().out) == ([], "")


def test_says_what_is_missing_where_it_may_not_install(
    ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    dev.offer_debian(["no-such-thing"])
    assert ran == []
    out = capsys.readouterr().out
    assert out.count("needs the Debian packages thing") == 1
    assert out.endswith("going on without\n")


def test_gives_up_after_three_attempts(
    ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(log: Path, *argv: str) -> None:
        ran.append(argv[-1])
        raise dev.Failure("no mirror")

    monkeypatch.setattr(dev, "run_logged", broken)
    dev.offer_debian(["no-such-thing"], pause_s=0)
    assert len(ran) == 3
    assert capsys.readouterr().out.endswith("no mirror\ngoing on without\n")
