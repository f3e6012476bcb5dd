"""dev.py: virtual environments that it really makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dev


def test_a_venv_is_made_and_a_broken_one_made_anew(tmp_path: Path) -> None:
    folder, log = tmp_path / "v", tmp_path / "log"
    python = folder / "bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nonexistent/python3")
    (folder / "junk").touch()
    assert dev.make_venv(folder, log) == python
    assert subprocess.run([python, "-c", ""], check=False, timeout=30).returncode == 0
    assert not (folder / "junk").exists()
    (folder / "kept").touch()
    dev.make_venv(folder, log)
    assert (folder / "kept").exists()
