"""`setup` on a home with agents, real files and fake programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.cli import main
from mempalace_broker.cli.setup.files import BACKUP
from mempalace_broker.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from mempalace_broker.system import program_folders

CURSOR = '{\n  // mine\n  "mcpServers": {\n    "mempalace": {"command": "mempalace-mcp", "env": {"A": "b"}},\n  },\n}\n'
GEMINI = '{"theme": "x"}'
# What `claude mcp add` and `codex mcp add` do, as far as it matters here.
CLAUDE = """\
import json, os, sys
path = os.path.expanduser("~/.claude.json")
assert sys.argv[1:6] == ["mcp", "add", "--scope", "user", "mempalace"] and sys.argv[6] == "--", sys.argv
known = json.load(open(path)) if os.path.exists(path) else {}
known.setdefault("mcpServers", {})["mempalace"] = {
    "type": "stdio", "command": sys.argv[7], "args": sys.argv[8:], "env": {}}
json.dump(known, open(path, "w"), indent=2)
"""
BROKEN = "import sys\nsys.exit('I do not feel like it')\n"


class Stage:
    """A home, our programs, and a folder for others' on PATH."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.shim = folder / "ours" / "mp-shim"
        for path in (self.home, self.bin, self.shim.parent):
            path.mkdir()
        for name in ("mp-shim", "mempalace-broker"):
            self.program(name, "", self.shim.parent)

    def program(self, name: str, body: str, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.write_text(f"#!{sys.executable}\n{body}")
        path.chmod(0o755)

    def file(self, name: str, text: str, mode: int = 0o640) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def tree(self) -> dict[str, tuple[bytes, int]]:
        files = sorted(path for path in self.home.rglob("*") if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mode) for path in files}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(made.shim.parent / "mempalace-broker")])
    monkeypatch.setattr(program_folders, "private_home", lambda: "")
    monkeypatch.setattr(program_folders, "_FOR_ALL", ())
    for name in ("XDG_CONFIG_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    return made


Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str, code: int = EXIT_OK) -> dict[str, dict[str, Any]]:
        assert main(["setup", "--json", *words]) == code
        return {row["agent"]: row for row in json.loads(capsys.readouterr().out)["agents"]}

    return command


def outcomes(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {agent: row["outcome"] for agent, row in found.items()}


def test_there_and_back(stage: Stage, run: Run) -> None:
    cursor = stage.file(".cursor/mcp.json", CURSOR, 0o600)
    gemini = stage.file(".gemini/settings.json", GEMINI)
    codex = stage.file(".codex/config.toml", 'model = "x" # mine\n')
    (stage.home / ".kiro/settings").mkdir(parents=True)
    before = stage.tree()
    wanted = {"cursor": "convert", "gemini": "add", "codex": "add", "kiro": "add"}

    assert outcomes(run("--dry-run")) == wanted
    assert stage.tree() == before
    done = run("--yes")
    assert outcomes(done) == wanted
    assert cursor.read_text() == CURSOR.replace("mempalace-mcp", str(stage.shim))
    assert (cursor.stat().st_mode & 0o777, gemini.stat().st_mode & 0o777) == (0o600, 0o640)
    assert Path(str(cursor) + BACKUP).read_text() == CURSOR
    assert Path(str(cursor) + BACKUP).stat().st_mode & 0o777 == 0o600
    assert done["cursor"]["backup"] == str(cursor) + BACKUP
    assert str(stage.shim) in codex.read_text()
    after = stage.tree()
    assert set(outcomes(run("--yes")).values()) == {"unchanged"}
    assert stage.tree() == after

    assert set(outcomes(run("--yes", "--remove")).values()) == {"restore"}
    assert stage.tree() == before
    assert set(outcomes(run("--yes", "--remove")).values()) == {"unchanged"}


def test_another_path_of_ours_does_not_cost_what_was_there_before(
    stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = stage.file(".cursor/mcp.json", CURSOR)
    before = stage.tree()
    run("--yes")
    for name in ("mp-shim", "mempalace-broker"):
        stage.program(name, "")
    monkeypatch.setattr(sys, "argv", [str(stage.bin / "mempalace-broker")])
    assert outcomes(run("--yes")) == {"cursor": "update"}
    assert str(stage.bin / "mp-shim") in cursor.read_text()
    assert outcomes(run("--yes", "--remove")) == {"cursor": "restore"}
    assert stage.tree() == before


def test_a_change_of_the_users_since_then_stays(stage: Stage, run: Run) -> None:
    gemini = stage.file(".gemini/settings.json", GEMINI)
    run("--yes")
    gemini.write_text(gemini.read_text().replace('"x"', '"y"'))
    assert outcomes(run("--yes", "--remove")) == {"gemini": "remove"}
    assert json.loads(gemini.read_text()) == {"theme": "y", "mcpServers": {}}


def test_only_one_of_them(stage: Stage, run: Run) -> None:
    stage.file(".cursor/mcp.json", CURSOR)
    gemini = stage.file(".gemini/settings.json", GEMINI)
    assert list(run("--yes", "--only", "cursor")) == ["cursor"]
    assert gemini.read_text() == GEMINI


def test_a_palace_of_the_users_choice(stage: Stage, run: Run, tmp_path: Path) -> None:
    stage.file(".kiro/settings/mcp.json", "")
    palace = tmp_path / "other"
    run("--yes", "--palace", str(palace))
    entry = json.loads((stage.home / ".kiro/settings/mcp.json").read_text())["mcpServers"]["mempalace"]
    assert entry == {"command": str(stage.shim), "args": ["--palace", str(palace)]}


def test_claudes_own_command_adds_what_is_new(stage: Stage, run: Run) -> None:
    stage.program("claude", CLAUDE)
    claude = stage.file(".claude.json", '{"numStartups": 7}', 0o600)
    assert outcomes(run("--yes")) == {"claude": "add"}
    entry = json.loads(claude.read_text())["mcpServers"]["mempalace"]
    assert (entry["command"], entry["env"]) == (str(stage.shim), {})
    assert outcomes(run("--yes")) == {"claude": "unchanged"}
    assert outcomes(run("--yes", "--remove")) == {"claude": "remove"}
    assert json.loads(claude.read_text()) == {"numStartups": 7, "mcpServers": {}}


def test_a_command_that_fails_is_told_and_the_others_go_on(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.program("codex", BROKEN)
    cursor = stage.file(".cursor/mcp.json", CURSOR)
    assert main(["setup", "--json", "--yes"]) == EXIT_FAILURE
    said = capsys.readouterr()
    rows = {row["agent"]: row for row in json.loads(said.out)["agents"]}
    assert "I do not feel like it" in rows["codex"]["error"]
    assert "I do not feel like it" in said.err
    assert rows["cursor"]["error"] is None
    assert str(stage.shim) in cursor.read_text()


def test_a_broken_file_is_left_as_it_is(stage: Stage, run: Run) -> None:
    cursor = stage.file(".cursor/mcp.json", '{"mcpServers": {')
    vscode = stage.file(".config/Code/User/mcp.json", "")
    vscode.write_bytes(b"\xff\xfe{\x00")
    found = run("--yes")
    assert set(outcomes(found).values()) == {"left alone"}
    assert "not JSON" in found["cursor"]["note"]
    assert (cursor.read_text(), vscode.read_bytes()) == ('{"mcpServers": {', b"\xff\xfe{\x00")


def test_a_file_behind_a_link_stays_behind_it(stage: Stage, run: Run, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text(GEMINI)
    (stage.home / ".gemini").mkdir()
    (stage.home / ".gemini/settings.json").symlink_to(real)
    run("--yes")
    assert (stage.home / ".gemini/settings.json").is_symlink()
    assert str(stage.shim) in real.read_text()
    run("--yes", "--remove")
    assert real.read_text() == GEMINI


def test_codex_may_have_moved_its_home(stage: Stage, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "codex"))
    (tmp_path / "codex").mkdir()
    assert run("--dry-run")["codex"]["file"] == str(tmp_path / "codex" / "config.toml")


def test_people_see_a_diff_and_are_asked(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = stage.file(".cursor/mcp.json", CURSOR)
    monkeypatch.setattr("sys.stdin", os.fdopen(os.dup(0)) if sys.stdin.closed else sys.stdin)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, text in ((False, CURSOR), (True, CURSOR.replace("mempalace-mcp", str(stage.shim)))):
        monkeypatch.setattr("click.confirm", lambda *_args, _answer=answer: _answer)
        assert main(["setup", "--no-engine", "--no-model", "--no-service"]) == EXIT_OK
        assert cursor.read_text() == text
    out = capsys.readouterr().out
    assert '-    "mempalace": {"command": "mempalace-mcp"' in out
    assert f'+    "mempalace": {{"command": "{stage.shim}"' in out


def test_nobody_to_ask(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    cursor = stage.file(".cursor/mcp.json", CURSOR)
    assert main(["setup", "--json"]) == EXIT_USAGE
    assert "--dry-run" in capsys.readouterr().err
    assert cursor.read_text() == CURSOR


def test_an_agent_that_nobody_knows(stage: Stage) -> None:
    assert main(["setup", "--only", "emacs", "--dry-run"]) == EXIT_USAGE


def test_a_machine_without_agents(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "--yes"]) == EXIT_OK
    assert "No agent" in capsys.readouterr().out
    assert stage.tree() == {}


CONFIG = '{"palace_path": "/p", "wort": "ü",\n "write_routing": {"cli": "direct"}}\n'


@pytest.fixture
def with_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that knows write_routing."""
    ready = {"engine": {"version": "3.8.0", "interpreter": "/v/bin/python", "problem": None}, "model": "cached"}
    monkeypatch.setattr("mempalace_broker.cli.setup.readiness", lambda _context: ready)


@pytest.mark.usefixtures("with_routing")
def test_mempalaces_hooks_save_through_the_broker_and_back(stage: Stage, run: Run) -> None:
    config = stage.file(".mempalace/config.json", CONFIG)
    assert outcomes(run("--yes")) == {"hooks": "add"}
    assert json.loads(config.read_text())["write_routing"] == {"cli": "direct", "hooks": "prefer"}
    assert json.loads(config.read_text())["wort"] == "ü"
    assert outcomes(run("--yes")) == {"hooks": "unchanged"}
    assert outcomes(run("--yes", "--remove")) == {"hooks": "restore"}
    assert config.read_text() == CONFIG


@pytest.mark.usefixtures("with_routing")
def test_hooks_that_mempalace_has_rewritten_meanwhile(stage: Stage, run: Run) -> None:
    config = stage.file(".mempalace/config.json", '{"palace_path": "/p"}')
    run("--yes", "--only", "hooks")
    config.write_text(json.dumps({**json.loads(config.read_text()), "later": 1}, indent=2))
    assert outcomes(run("--yes", "--remove")) == {"hooks": "remove"}
    assert json.loads(config.read_text()) == {"palace_path": "/p", "later": 1}


@pytest.mark.usefixtures("with_routing")
@pytest.mark.parametrize(
    ("config", "outcome"),
    [
        ('{"write_routing": {"hooks": "direct"}}', "left alone"),
        ('{"write_routing": {"default": "require"}}', "unchanged"),
        ('{"write_routing": "prefer"}', "left alone"),
        ("[]", "left alone"),
        ("{", "left alone"),
    ],
)
def test_hooks_that_stay_as_they_are(config: str, outcome: str, stage: Stage, run: Run) -> None:
    file = stage.file(".mempalace/config.json", config)
    assert outcomes(run("--yes")) == {"hooks": outcome}
    run("--yes", "--remove")
    assert file.read_text() == config, "what the user wrote is never ours to remove"


@pytest.mark.usefixtures("with_routing")
def test_no_link_that_a_container_may_have_put_there_is_followed(stage: Stage, run: Run) -> None:
    secret = stage.file(".docker.json", '{"auth": "secret"}')
    config = stage.file(".mempalace/config.json", CONFIG)
    config.unlink()
    config.symlink_to(secret)
    assert outcomes(run("--yes")) == {"hooks": "left alone"}
    assert secret.read_text() == '{"auth": "secret"}'
    assert [path.name for path in config.parent.iterdir()] == ["config.json"], "a copy where containers can read it"


def spoil(backup: Path, how: str, secret: Path) -> None:
    backup.unlink()
    if how == "link":
        backup.symlink_to(secret)
    elif how == "dangling link":
        backup.symlink_to(secret.parent / "nothing")
    elif how == "folder":
        backup.mkdir()
    else:
        backup.write_text("{ not JSON")


_SPOILED = ["link", "dangling link", "folder", "garbage"]


@pytest.mark.usefixtures("with_routing")
@pytest.mark.parametrize("how", _SPOILED)
def test_what_we_added_to_mempalaces_file_goes_though_its_backup_is_spoiled(how: str, stage: Stage, run: Run) -> None:
    secret = stage.file("secret", '{"auth": "secret"}')
    config = stage.file(".mempalace/config.json", CONFIG)
    run("--yes")
    backup = config.with_name(config.name + BACKUP)
    spoil(backup, how, secret)
    row = run("--yes", "--remove")["hooks"]
    assert (row["outcome"], row["error"]) == ("remove", None)
    assert "is not used" in row["note"]
    assert row["hint"]
    assert json.loads(config.read_text()) == json.loads(CONFIG)
    assert secret.read_text() == '{"auth": "secret"}'
    assert os.path.lexists(backup) is (how == "folder")


@pytest.mark.usefixtures("with_routing")
def test_a_value_without_a_backup_is_named_and_stays(stage: Stage, run: Run) -> None:
    config = stage.file(".mempalace/config.json", CONFIG)
    run("--yes")
    config.with_name(config.name + BACKUP).unlink()
    row = run("--yes", "--remove")["hooks"]
    assert row["outcome"] == "unchanged"
    assert "by hand" in row["hint"]


@pytest.mark.parametrize("how", _SPOILED[1:])
def test_our_entry_goes_though_the_backup_is_spoiled(how: str, stage: Stage, run: Run) -> None:
    cursor = stage.file(".cursor/mcp.json", '{"mcpServers": {"other": {"command": "x"}}}')
    run("--yes")
    spoil(cursor.with_name(cursor.name + BACKUP), how, cursor)
    row = run("--yes", "--remove")["cursor"]
    assert (row["outcome"], row["error"]) == ("remove", None)
    assert "is not used" in row["note"]
    assert json.loads(cursor.read_text()) == {"mcpServers": {"other": {"command": "x"}}}


def test_hooks_of_an_older_mempalace_and_of_none(stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.file(".mempalace/config.json", CONFIG)
    for version in ("3.7.9", None):
        ready = {"engine": {"version": version, "problem": None}, "model": "cached"}
        monkeypatch.setattr("mempalace_broker.cli.setup.readiness", lambda _context, _ready=ready: _ready)
        assert run("--yes") == {}
