"""With power_safe, a write is answered when the disk has confirmed it, and not as a success where it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine_driver import EngineProcess, make_home
from tests.rehearsal import as_on_macos, compiled

ADD = {"wing": "w", "room": "r", "content": "what a power cut must not take"}


@pytest.mark.engine
@pytest.mark.parametrize("confirms", [True, False])
def test_the_disk_has_the_last_word(tmp_path: Path, confirms: bool) -> None:
    env = {} if confirms else as_on_macos(compiled(tmp_path), "syncfs")
    journal = tmp_path / "broker.journal"
    with EngineProcess(
        "newest", tmp_path / "palace", make_home(tmp_path), journal=journal, power_safe=True, env=env
    ) as engine:
        engine.start()
        answer = engine.tool("add_drawer", ADD, key="s.1.1")
        if confirms:
            assert "error" not in answer
        else:
            assert "was executed, but the disk did not confirm it (Input/output error)" in answer["error"]["message"]
