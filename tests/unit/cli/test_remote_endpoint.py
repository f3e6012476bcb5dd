"""What commands say where $MEMPALACE_BROKER names a broker on another machine that can't be reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mempalace_broker.cli import main
from mempalace_broker.errors import EXIT_UNAVAILABLE

FAR = "tcp://127.0.0.1:1"


@pytest.fixture(autouse=True)
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMPALACE_BROKER_PRIVATE", str(tmp_path / "private"))
    monkeypatch.setenv("MEMPALACE_BROKER", FAR)
    (tmp_path / "token").write_text("0" * 64)
    (tmp_path / "token").chmod(0o600)
    monkeypatch.setenv("MEMPALACE_BROKER_TOKEN_FILE", str(tmp_path / "token"))


def test_status_names_that_broker_and_no_owner_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == EXIT_UNAVAILABLE
    said = capsys.readouterr().out
    assert f"out of reach  {FAR}" in said
    assert "stop --now" not in said
    assert main(["status", "--json"]) == EXIT_UNAVAILABLE
    assert json.loads(capsys.readouterr().out)["owner"] is None


def test_stop_does_not_offer_to_kill_a_process_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop"]) == EXIT_UNAVAILABLE
    said = capsys.readouterr().err
    assert "nothing is known of the broker" in said
    assert "Hint: run this where the broker runs" in said
