"""With power_safe, a write that the disk does not confirm is not answered as a success."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine_driver import EngineProcess, make_home
from tests.rehearsal import as_on_macos, compiled

ADD = {"wing": "w", "room": "r", "content": "what a power cut must not take"}


@pytest.mark.engine
def test_the_disk_has_the_last_word(tmp_path: Path) -> None:
    home, palace, journal = make_home(tmp_path), tmp_path / "palace", tmp_path / "broker.journal"
    env = as_on_macos(compiled(tmp_path), "syncfs")
    with EngineProcess("newest", palace, home, journal=journal, power_safe=True, env=env) as engine:
        engine.start()
        told = engine.tool("add_drawer", ADD, key="s.1.1")["error"]["message"]
        assert "was executed, but the disk did not confirm it (Input/output error)" in told
        assert engine.tool("list_drawers", {"wing": "w"})["total"] == 1, (
            "it is there all the same, and reads are answered"
        )
