"""Snapshots by the schedule: one that can't be made does not end the schedule."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from mempalace_broker.broker.backups import Backups
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.settings import BrokerSettings
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.private import VARIABLE
from tests.fakes.clock import FakeClock


def backups(tmp_path: Path, clock: FakeClock) -> Backups:
    env = {VARIABLE: str(tmp_path / "private")}
    files = StateFiles(str(tmp_path), str(tmp_path / "palace"), env=env)
    assert not files.private.make()
    log, settings = logging.getLogger("test"), BrokerSettings(backup_every_h=24)
    return Backups(PalaceIdentity(files.palace, "", "config"), files, settings, env, cast(Any, clock), log)


def test_where_no_command_can_be_run_the_schedule_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an upgrade has replaced the interpreter of a broker that runs."""
    clock = FakeClock()
    made = backups(tmp_path, clock)
    monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))
    asyncio.run(made._make(clock.wall()))
    assert "can't be run" in "".join(entry["what"] for entry in made.degraded())
    assert (made.as_json() or {})["due_in_s"] == 3600


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    made = backups(tmp_path, clock)
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(hangs))
    monkeypatch.setattr("mempalace_broker.broker.backups._LIMIT_S", 0.2)

    async def work() -> int | None:
        await made._make(clock.wall())
        assert made._child is not None
        return made._child.returncode

    assert asyncio.run(work()) is not None
    assert "was not done" in "".join(entry["what"] for entry in made.degraded())
