"""The files of services: words with anything in them arrive as they are."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mempalace_broker.cli.service.units import ServiceSpec, launchd_plist, systemd_unit

ODD = """a "b" 'c' $HOME %h \\x ; é メ \t\n-"""


def spec(program: str = "/opt/x y/mempalace-broker", **env: str) -> ServiceSpec:
    return ServiceSpec("mempalace-broker", f"/p/{ODD}", (program, "run", "--standby", "--palace", f"/p/{ODD}"), env)


def words_of(line: str) -> list[str]:
    """What systemd makes of quoted words (systemd.syntax, systemd.unit)."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    plain = [re.sub(r"\\(x[0-9a-f]{2}|.)", _unescaped, word) for word in found]
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


def _unescaped(code: re.Match[str]) -> str:
    return code[1] if len(code[1]) == 1 else chr(int(code[1][1:], 16))


def test_a_unit_says_what_to_run_in_words_that_systemd_reads_back() -> None:
    unit = systemd_unit(spec(MEMPALACE_PALACE_PATH="/a %b", EMPTY="")).decode()
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    assert not re.search(r"(?<!\$)\$(?!\$)", lines["ExecStart"]), "systemd would replace $HOME"
    assert words_of(lines["ExecStart"]) == list(spec().argv)
    assert 'Environment="MEMPALACE_PALACE_PATH=/a %%b"' in unit
    assert 'Environment="EMPTY="' in unit
    assert len(unit.splitlines()) == unit.count("\n"), "a line feed in a name makes no line of its own"
    assert "\nRestart=always\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_has_nothing_to_complain_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = tmp_path / """x "y" 'z' %h é""" / "mempalace-broker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "mempalace-broker.service"
    file.write_bytes(systemd_unit(spec(str(program), NAME=ODD)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_property_list_holds_words_as_they_are() -> None:
    job = plistlib.loads(launchd_plist(spec(NAME=ODD)))
    assert job["ProgramArguments"][-1] == f"/p/{ODD}"
    assert job["EnvironmentVariables"] == {"NAME": ODD}
    assert (job["Label"], job["RunAtLoad"], job["KeepAlive"]) == ("mempalace-broker", True, True)
