"""What `setup` offers where something is missing: never without being asked or told, and with fake installers here."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.cli import main, service
from mempalace_broker.cli.setup.machine.installers import FOLDER
from mempalace_broker.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from mempalace_broker.system import embedding_model, kernel
from tests.fakes import service_managers
from tests.unit.cli.setup.test_setup import CURSOR, Stage, stage

__all__ = ["stage"]
# Installs as far as find_engine looks.
INSTALL = """\
import os, sys
def install(folder):
    print("Resolved 1 package")
    for part in ("bin", "lib/python3.12/site-packages/mempalace-3.11.0.dist-info"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    open(os.path.join(folder, "lib/python3.12/site-packages/mempalace-3.11.0.dist-info/METADATA"), "w").close()
    open(os.path.join(folder, "pyvenv.cfg"), "w").write("version = 3.12.1\\n")
    script = os.path.join(folder, "bin", "mempalace-mcp")
    open(script, "w").write("#!" + os.path.join(folder, "bin", "python") + "\\n")
    for name in (script, os.path.join(folder, "bin", "python")):
        open(name, "a").close()
        os.chmod(name, 0o755)
"""
UV = """\
assert sys.argv[1:] == ["tool", "install", "mempalace"], sys.argv
install(os.path.expanduser("~/.local/share/uv/tools/mempalace"))
"""
BROKEN = "import sys\nsys.exit('error: no such host')\n"


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    """Nothing of this machine's counts."""
    monkeypatch.setattr(service, "private_home", lambda: str(stage.home))
    monkeypatch.setattr(kernel, "MACOS", False)
    stage.program("systemctl", "import sys\nsys.exit(1)\n")


@pytest.fixture
def with_model(monkeypatch: pytest.MonkeyPatch) -> None:
    known = embedding_model.ModelStatus(embedding_model.ModelState.CACHED, embedding_model.Weights.INT8, "/m")
    monkeypatch.setattr(embedding_model, "status", lambda _home: known)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str, code: int = EXIT_OK) -> dict[str, Any]:
        assert main(["setup", "--json", *words]) == code
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return command


def offers(said: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    return {entry["what"]: (entry["command"], entry["done"]) for entry in said["offers"]}


@pytest.mark.usefixtures("with_model")
def test_yes_installs_nothing_that_no_option_names(stage: Stage, run: Run) -> None:
    stage.program("uv", INSTALL + UV)
    for words in (["--dry-run"], ["--dry-run", "--engine"], ["--yes"], ["--yes", "--no-engine"]):
        said = run(*words)
        assert offers(said) == {"engine": ("uv tool install mempalace", False)}
        assert said["engine"]["version"] is None
    assert stage.tree() == {}


@pytest.mark.usefixtures("with_model")
def test_the_engine_by_option(stage: Stage, run: Run) -> None:
    stage.program("uv", INSTALL + UV)
    cursor = stage.file(".cursor/mcp.json", CURSOR)
    said = run("--yes", "--engine")
    assert offers(said) == {"engine": ("uv tool install mempalace", True)}
    assert said["engine"]["version"] == "3.11.0"
    assert str(stage.shim) in cursor.read_text()
    assert run("--yes", "--engine")["offers"] == [], "there is nothing to install now"


@pytest.mark.usefixtures("with_model")
def test_without_an_installer_an_environment_of_ours_and_nothing_left_of_half_a_one(
    stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = "assert sys.argv[1:4] == ['-m', 'venv', '--clear']\ninstall(sys.argv[4])\n"
    stage.program("python-of-ours", INSTALL + venv)
    monkeypatch.setattr(sys, "executable", str(stage.bin / "python-of-ours"))
    monkeypatch.setenv("PATH", str(stage.bin))
    folder = stage.home / FOLDER
    said = run("--yes", "--engine", code=EXIT_FAILURE)  # the python in it, which is to run pip, is an empty file
    assert "Exec format error" in said["offers"][0]["error"]
    assert not folder.exists()


@pytest.mark.usefixtures("with_model")
def test_an_installer_that_fails_is_told_and_the_rest_is_done(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.program("pipx", BROKEN)
    cursor = stage.file(".cursor/mcp.json", CURSOR)
    assert main(["setup", "--yes", "--engine", "--json"]) == EXIT_FAILURE
    out, err = capfd.readouterr()
    (entry,) = json.loads(out)["offers"]
    assert entry["error"].startswith("`pipx install mempalace` failed with exit code 1.")
    assert "error: no such host" in err
    assert "Hint: " in err
    assert str(stage.shim) in cursor.read_text()


@pytest.mark.usefixtures("with_model")
def test_an_installer_that_installs_elsewhere(stage: Stage, run: Run) -> None:
    stage.program("uv", "")
    (entry,) = run("--yes", "--engine", code=EXIT_FAILURE)["offers"]
    assert "succeeded, but: No mempalace " in entry["error"]


@pytest.mark.usefixtures("with_model")
def test_an_engine_that_a_setting_names_is_not_installed_elsewhere(
    stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.program("uv", INSTALL + UV)
    monkeypatch.setenv("MEMPALACE_BROKER_ENGINE", str(stage.home / "not-there"))
    assert run("--yes", "--engine")["offers"] == []


def test_the_model(stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(embedding_model, "install_int8", lambda *_args, **named: asked.append(named))
    monkeypatch.setenv("MEMPALACE_BROKER_ENGINE", "/not-there")
    command = "mempalace-broker model install --real-home"
    said = run("--yes")
    assert (offers(said), said["model"], asked) == ({"model": (command, False)}, "missing", [])
    said = run("--yes", "--model")
    assert (offers(said), said["model"]) == ({"model": (command, True)}, "cached")
    assert asked[0]["real_home"] is True
    assert "mix" not in asked[0]
    monkeypatch.setattr(embedding_model, "may_hold_drawers", lambda _palace: True)
    assert run("--yes")["offers"] == [], "its weights would not match the vectors that are there"


@pytest.mark.usefixtures("with_model")
def test_the_service(stage: Stage, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    body = Path(service_managers.__file__).read_text().partition("\n")[2]
    stage.program("systemctl", body)
    (stage.bin / "systemctl").write_text(f"#!{sys.executable} -S\n{body}")
    file = stage.home / ".config/systemd/user/mempalace-broker.service"
    assert offers(run("--yes", "--no-engine"))["service"] == ("mempalace-broker service install", False)
    assert not file.exists()
    palace = str(stage.home / "my palace")
    named = offers(run("--dry-run", "--palace", palace))["service"][0]
    assert shlex.split(named) == ["mempalace-broker", "service", "install", "--palace", palace]
    assert offers(run("--yes", "--service"))["service"][1] is True
    assert file.exists()
    assert "service" not in offers(run("--yes")), "it is there"
    assert main(["setup", "--remove", "--yes"]) == EXIT_OK
    assert "To remove it: mempalace-broker service uninstall" in capsys.readouterr().out
    assert file.exists()


@pytest.mark.usefixtures("with_model")
def test_people_are_asked(stage: Stage, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stage.program("uv", INSTALL + UV)
    monkeypatch.setattr("sys.stdin", os.fdopen(os.dup(0)) if sys.stdin.closed else sys.stdin)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, line in ((False, "mempalace itself: No mempalace "), (True, "mempalace itself: 3.11.0")):
        asked: list[str] = []
        monkeypatch.setattr("click.confirm", lambda text, _asked=asked, _answer=answer: _asked.append(text) or _answer)
        assert main(["setup"]) == EXIT_OK
        assert asked == ["Run it?"]
        out, err = capfd.readouterr()
        assert "  uv tool install mempalace\n" in out
        assert line in out
        assert ("Resolved 1 package" in err) is answer, "the installer speaks for itself"


def test_removing_installs_nothing(stage: Stage) -> None:
    assert main(["setup", "--remove", "--yes", "--engine"]) == EXIT_USAGE
