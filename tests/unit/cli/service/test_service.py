"""`service` with a fake systemctl and a fake launchctl on PATH."""

from __future__ import annotations

import json
import plistlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mempalace_broker.cli import main, service
from mempalace_broker.errors import EXIT_FAILURE, EXIT_NOT_RUNNING, EXIT_OK
from mempalace_broker.system import kernel
from tests.fakes import service_managers as fake

FILES = {
    "systemd": ".config/systemd/user/mempalace-broker.service",
    "launchd": "Library/LaunchAgents/mempalace-broker.plist",
}


class Stage:
    """A home, the fakes, and a program that is installed."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.home = folder / "home"
        self.fakes = folder / "fakes"
        self.file = self.home / FILES[kind]
        self.program = folder / "bin" / "mempalace-broker"

    def used(self) -> list[str]:
        file = self.fakes / "used"
        return file.read_text().splitlines() if file.exists() else []

    def files(self) -> list[Path]:
        return sorted(path for path in self.home.rglob("*") if path.name not in {".config", "Library"})


@pytest.fixture(params=["systemd", "launchd"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path, request.param)
    for folder in (made.home, made.fakes, made.program.parent, made.home / ".config", made.home / "Library"):
        folder.mkdir()
    body = Path(fake.__file__).read_text().partition("\n")[2]
    for name in ("systemctl", "launchctl"):
        (made.fakes / name).write_text(f"#!{sys.executable} -S\n{body}")
        (made.fakes / name).chmod(0o755)
    made.program.write_text("#!/bin/sh\n")
    made.program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(made.program)])
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("PATH", f"{made.fakes}:/usr/bin:/bin")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy")
    monkeypatch.setattr(service, "private_home", lambda: str(made.home))
    monkeypatch.setattr(kernel, "MACOS", request.param == "launchd")
    return made


Run = Callable[..., dict[str, object]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str, code: int = EXIT_OK) -> dict[str, object]:
        assert main(["service", *words, "--json"]) == code
        said = capsys.readouterr()
        found: dict[str, object] = json.loads(said.out) if said.out else {"error": said.err}
        return found

    return command


def test_from_nothing_to_a_service_and_back(stage: Stage, run: Run) -> None:
    assert run("status", code=EXIT_NOT_RUNNING)["installed"] is False
    assert run("install")["done"] == "installed"
    text = stage.file.read_text()
    assert str(stage.program) in text
    assert "secret" not in text
    assert stage.file.stat().st_mode & 0o777 == 0o600
    state = run("status")
    assert (state["installed"], state["enabled"], state["running"], state["pid"]) == (True, True, True, fake.PID)
    assert run("uninstall")["was_installed"] is True
    assert stage.files() == []
    assert run("uninstall")["was_installed"] is False


def test_again_changes_nothing_and_another_program_updates(
    stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install")
    before = stage.used()
    assert run("install")["done"] == "unchanged"
    assert not any(word in line for line in stage.used()[len(before) :] for word in ("start", "boot", "enable"))
    other = stage.program.parent / "new" / "mempalace-broker"
    other.parent.mkdir()
    shutil.copy(stage.program, other)
    monkeypatch.setattr(sys, "argv", [str(other)])
    assert run("install")["done"] == "updated"
    assert str(other) in stage.file.read_text()
    assert any("restart" in line or "bootout" in line for line in stage.used()), "the old one does not stay"


def test_dry_run_writes_nothing(stage: Stage, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("install", "--dry-run")
    assert found["file"] == str(stage.file)
    assert main(["service", "install", "--dry-run"]) == EXIT_OK
    assert capsys.readouterr().out == found["content"]
    assert stage.files() == []
    assert stage.used() == []


def test_a_manager_that_refuses_leaves_nothing_behind(stage: Stage, run: Run) -> None:
    (stage.fakes / "refuse").write_text("Failed to connect to bus: No medium found")
    error = str(run("install", code=EXIT_FAILURE)["error"])
    assert "No medium found" in error
    assert "Hint:" in error
    assert stage.files() == []


def test_a_manager_that_refuses_an_update_keeps_the_file(
    stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install")
    before = stage.file.read_bytes()
    (stage.fakes / "refuse").write_text("no")
    monkeypatch.setenv("MEMPALACE_BROKER_PARK_S", "7")
    run("install", code=EXIT_FAILURE)
    assert stage.file.read_bytes() == before


def test_after_an_update_that_fails_the_service_runs_from_the_file_as_it_was(
    stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install")
    before, text = run("status"), stage.file.read_text()
    (stage.fakes / "bad").write_text("MEMPALACE_BROKER_PARK_S")
    monkeypatch.setenv("MEMPALACE_BROKER_PARK_S", "7")
    run("install", code=EXIT_FAILURE)
    assert stage.file.read_text() == text
    assert run("status") == before
    if stage.file.suffix == ".service":
        assert json.loads((stage.fakes / "loaded").read_text())["read"][stage.file.name] == text


def test_the_palace_is_the_one_of_the_options(stage: Stage, run: Run, tmp_path: Path) -> None:
    palace = tmp_path / "other palace"
    palace.mkdir()
    said = run("install", "--palace", str(palace), "--dry-run")
    assert str(palace) in str(said["content"])
    assert "mempalace-broker-" in str(said["file"]), "a service of its own"


def test_variables_that_name_the_palace_are_kept_and_it_never_idles(
    stage: Stage, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMPALACE_PALACE_PATH", str(tmp_path / "mine"))
    content = str(run("install", "--dry-run")["content"])
    if stage.file.suffix == ".plist":
        env = plistlib.loads(content.encode())["EnvironmentVariables"]
        assert env["MEMPALACE_PALACE_PATH"] == str(tmp_path / "mine")
        assert env["MEMPALACE_BROKER_IDLE_S"] == "0"
    else:
        assert f'"MEMPALACE_PALACE_PATH={tmp_path / "mine"}"' in content
        assert '"MEMPALACE_BROKER_IDLE_S=0"' in content


@pytest.mark.parametrize("stage", ["launchd"], indirect=True)
def test_over_ssh_a_mac_has_no_session_of_the_desktop(stage: Stage, run: Run) -> None:
    (stage.fakes / "no-gui").touch()
    assert run("install")["done"] == "installed"
    assert any("bootstrap user/" in line for line in stage.used())


def test_a_copy_that_will_not_stay_is_no_service(
    stage: Stage, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".cache" / "uv" / "mempalace-broker"
    copy.parent.mkdir(parents=True)
    shutil.copy(stage.program, copy)
    monkeypatch.setattr(sys, "argv", [str(copy)])
    monkeypatch.setattr(sys, "executable", str(copy.parent / "python"))
    monkeypatch.setattr("mempalace_broker.system.program_folders.private_home", lambda: "")
    monkeypatch.setattr("mempalace_broker.system.program_folders._FOR_ALL", ())
    assert "uv tool install" in str(run("install", code=EXIT_FAILURE)["error"])
