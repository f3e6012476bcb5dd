"""Who is told of newer versions, what of, and that nobody else makes us ask."""

from __future__ import annotations

import importlib.metadata
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mempalace_broker.cli import update_notice
from mempalace_broker.route import engine_version
from mempalace_broker.system.find_engine import EngineCommand
from mempalace_broker.system.private import SETTINGS, VARIABLE, updates_file

IS_FROM_INDEX = update_notice._is_from_index
UV = "/home/me/.local/share/uv/tools/mempalace/bin/python"


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A person at a terminal, with an old mempalace."""
    monkeypatch.setattr(update_notice, "_on_a_terminal", lambda: True)
    monkeypatch.setattr(update_notice, "_is_from_index", lambda: True)
    monkeypatch.setattr(update_notice, "__version__", "0.1.0")
    monkeypatch.setattr(update_notice, "WAIT_S", 60.0)  # on a busy machine a thread begins late
    monkeypatch.setattr(engine_version, "expected_engine", lambda _env: EngineCommand(UV, "test", "3.4.0"))
    (tmp_path / "private").mkdir(mode=0o700)
    return {"HOME": str(tmp_path), VARIABLE: str(tmp_path / "private")}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The packages that the index was asked for; it has newer ones of both."""
    names: list[str] = []

    def newest(name: str) -> str:
        names.append(name)
        return {"mempalace": "3.11.0", "mempalace-broker": "0.2.0"}[name]

    monkeypatch.setattr(update_notice, "_newest", newest)
    return iter([names])


def test_both_are_told_with_their_commands_and_asked_for_once_a_day(
    env: dict[str, str], asked: Iterator[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    names = next(asked)
    for _ in range(2):
        update_notice.notify("status", [], env)
        said = capsys.readouterr().err
        assert "mempalace-broker 0.2.0 is available, this is 0.1.0: " in said
        assert "mempalace 3.11.0 is available, this is 3.4.0: uv tool upgrade mempalace\n" in said
        assert "update_notice = false" in said
    assert names == ["mempalace-broker", "mempalace"]
    note = json.loads(Path(updates_file(env).path).read_text())
    updates_file(env).write(json.dumps({**note, "asked_at": time.time() - update_notice.DAY_S}).encode())
    update_notice.notify("status", [], env)
    assert len(names) == 4


@pytest.mark.parametrize(
    ("command", "argv", "variables"),
    [
        ("ensure", [], {}),
        ("dial-stdio", [], {}),
        ("status", ["status", "--json"], {}),
        ("status", [], {"CLAUDECODE": "1"}),
        ("status", [], {"CI": "true"}),
        ("status", [], {update_notice.VARIABLE: "0"}),
    ],
)
def test_others_never_make_us_ask(
    command: str,
    argv: list[str],
    variables: dict[str, str],
    env: dict[str, str],
    asked: Iterator[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    update_notice.notify(command, argv, {**env, **variables})
    assert next(asked) == []
    assert capsys.readouterr().err == ""
    assert not Path(updates_file(env).path).exists()


def test_without_a_terminal(env: dict[str, str], asked: Iterator[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_notice, "_on_a_terminal", lambda: False)
    update_notice.notify("status", [], env)
    assert next(asked) == []


def test_the_setting_in_the_file(env: dict[str, str], asked: Iterator[list[str]]) -> None:
    file = Path(env[VARIABLE]) / SETTINGS
    file.write_text("[broker]\nupdate_notice = false\n")
    file.chmod(0o600)
    update_notice.notify("status", [], env)
    assert next(asked) == []


def test_an_index_that_hangs_is_not_waited_for_and_not_asked_again(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over, times, asking = threading.Event(), [], list[threading.Thread]()

    def hang(_name: str) -> str:
        times.append(1)
        asking.append(threading.current_thread())
        over.wait(60)
        return ""

    monkeypatch.setattr(update_notice, "_newest", hang)
    monkeypatch.setattr(update_notice, "WAIT_S", 0.05)
    for _ in range(2):
        update_notice.notify("status", [], env)
    assert len(times) == 1
    over.set()
    asking[0].join(60)  # else it asks for the next package in the middle of another test
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("origin", ['{"url": "file:///home/me/mempalace-broker", "dir_info": {}}', None])
def test_of_a_checkout_nobody_is_told_to_take_what_the_index_has_under_its_name(
    origin: str | None,
    env: dict[str, str],
    asked: Iterator[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def installed(_name: str) -> SimpleNamespace:
        return SimpleNamespace(read_text=lambda name: origin if name == "direct_url.json" else "")

    monkeypatch.setattr(update_notice, "_is_from_index", IS_FROM_INDEX)
    monkeypatch.setattr(importlib.metadata, "distribution", installed)
    update_notice.notify("status", [], env)
    names = ["mempalace"] if origin else ["mempalace-broker", "mempalace"]
    assert next(asked) == names
    assert ("mempalace-broker 0.2.0" in capsys.readouterr().err) is (origin is None)


@pytest.mark.parametrize("version", ["9.0.0rc1", "9.0\x1b[2J", "", 7, None, "3.3.9"])
def test_only_a_final_version_that_is_newer_counts(
    version: object, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    updates_file(env).write(json.dumps({"asked_at": time.time(), "mempalace": version}).encode())
    update_notice.notify("status", [], env)
    assert capsys.readouterr().err == ""


def test_an_engine_of_pip() -> None:
    assert update_notice._upgrade("mempalace", "/v/bin/python") == "/v/bin/python -m pip install --upgrade mempalace"
    found = update_notice._upgrade("mempalace", "/h/.local/share/uv/tools/mempalace-broker/bin/python")
    assert found == "uv tool upgrade mempalace-broker"
