"""Whether the palace is free when the broker leaves."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from mempalace_broker.broker.engine_host import EngineHost
from mempalace_broker.settings_files import PrivateSettings
from mempalace_broker.system.command_note import write_command
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.paths import StateFiles
from tests.fakes.clock import FakeClock


def test_a_command_keeps_the_palace_whatever_the_broker_knows_of_it(tmp_path: Path) -> None:
    env = {"MEMPALACE_BROKER_PRIVATE": str(tmp_path / "own")}
    files = StateFiles(str(tmp_path), str(tmp_path / "palace"), env=env)
    files.prepare()
    host = EngineHost(
        dispatcher=cast(Any, SimpleNamespace(lent=False)),  # the supervisor forgets the command when it is told to end
        identity=cast(Any, None),
        files=files,
        settings=PrivateSettings().broker({}),
        env=env,
        clock=FakeClock(),
        log=logging.getLogger("mempalace_broker.test"),
        tasks=cast(Any, None),
        turn=lambda: None,
        covers=True,
    )
    told = [host.palace_is_free]
    lock = FileLock(files.engine_lock)
    assert lock.try_acquire()
    write_command(lock, os.getpid(), ["mempalace", "repair"], 1_795_000_000.0)
    told.append(host.palace_is_free)
    lock.release()
    assert [*told, host.palace_is_free] == [True, False, True]
