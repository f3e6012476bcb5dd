"""The demo's pure parts: pieces of text, lines for agents, figures."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.cli.demo import home as homes
from mempalace_broker.cli.demo import own_folder
from mempalace_broker.cli.demo.configs import agent_configs
from mempalace_broker.cli.demo.home import environment
from mempalace_broker.cli.demo.show import timing_rows
from mempalace_broker.cli.demo.story import QUESTIONS, _texts, in_parallel
from mempalace_broker.cli.demo.texts import LONGEST, SHORTEST, load, split
from mempalace_broker.errors import BrokerError, UsageError
from mempalace_broker.system import kernel
from mempalace_broker.system.find_engine import SETTING, EngineCommand
from mempalace_broker.system.private import VARIABLE
from mempalace_broker.system.unix_socket import MAX_PATH


def test_the_shipped_texts_are_enough() -> None:
    pieces = load()
    assert len(pieces) >= 36
    assert {piece.room for piece in pieces} == set(QUESTIONS)
    assert len({piece.text for piece in pieces}) == len(pieces)
    assert all(SHORTEST <= len(piece.text) <= LONGEST for piece in pieces)


def test_headings_code_and_short_lines_are_not_pieces() -> None:
    text = (
        "# Heading that is long enough to count as a piece\n\n```\ncode " + "x" * 50 + "\n```\n\nshort\n\n" + "w " * 30
    )
    assert split(text) == [("w " * 30).strip()]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=3000), max_size=6))
def test_no_piece_is_too_long(paragraphs: list[str]) -> None:
    pieces = split("\n\n".join(paragraphs))
    assert all(len(piece) <= LONGEST for piece in pieces)


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("tiny")
    with pytest.raises(UsageError, match="no text in"):
        load(tmp_path)


def test_a_users_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "My Notes.txt").write_bytes(b"\xff\xfe" + b"some words of mine that are long enough to be kept")
    (tmp_path / "image.png").write_bytes(b"x" * 100)
    (piece,) = load(tmp_path)
    assert piece.room == "my-notes"


@pytest.mark.parametrize("command", [["/usr/bin/mp-shim"], ["/a b/python", "-P", "-m", "mempalace_broker.shim"]])
def test_configs_parse_and_hold_the_command(command: list[str]) -> None:
    configs = agent_configs(command)
    codex = tomllib.loads(configs["Codex (~/.codex/config.toml)"])["mcp_servers"]["mempalace"]
    assert [codex["command"], *codex.get("args", [])] == command
    opencode = json.loads(configs["opencode (opencode.json)"])
    assert opencode["mcp"]["mempalace"]["command"] == command
    other = json.loads(configs["others (mcpServers)"])["mcpServers"]["mempalace"]
    assert [other["command"], *other["args"]] == command
    assert configs["Claude Code"].startswith("claude mcp add --scope user mempalace -- ")


def test_the_demo_passes_on_nothing_that_leads_to_the_users_palace() -> None:
    env = {"PATH": "/bin", "HOME": "/home/me", "MEMPALACE_PALACE_PATH": "/mine", "MEMPALACE_BROKER": "/s", "KEY": "s"}
    made = environment(env, Path("/demo/home"), EngineCommand("/e/python", "x", "3.11.0"))
    assert made["HOME"] == "/demo/home"
    assert made["MEMPALACE_BROKER_ENGINE"] == "/e/python"
    assert not {"MEMPALACE_PALACE_PATH", "MEMPALACE_BROKER", "KEY"} & set(made)


def test_the_demo_runs_the_engine_of_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "python"
    engine.write_text(f"#!/bin/sh\necho '{json.dumps([str(engine), '3.9.1', [3, 11]])}'\n", encoding="utf-8")
    engine.chmod(0o755)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "config.toml").write_text(f"[broker]\nengine = '{engine}'\n", encoding="utf-8")
    monkeypatch.setattr(homes, "provide_model", lambda *_: "")
    env = {"HOME": str(tmp_path), "PATH": "/bin", VARIABLE: str(private)}
    made = homes.make(tmp_path / "demo", env, lambda _: None)
    assert (made.engine.interpreter, made.env[SETTING]) == (str(engine), str(engine))


def test_on_a_mac_sockets_fit_below_the_demos_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its $TMPDIR is a name of 57 characters: /private/var/folders/6b/_wq3_w4d2rzgmk6d1s4tz6h40000gn/T."""
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folder("selftest") as root:
        assert not root.is_relative_to(tmp_path)
        assert len(f"/private{root}/demo/home/.config/mempalace/broker.sock") <= MAX_PATH
    assert not root.exists()


def test_timings_are_summed_over_sessions() -> None:
    agents: list[Any] = [
        SimpleNamespace(timings={"search": [0.1, 0.3]}),
        SimpleNamespace(timings={"search": [0.2], "x": [1.0]}),
    ]
    assert timing_rows(agents) == [
        {"call": "search", "times": 3, "median_ms": 200.0, "slowest_ms": 300.0},
        {"call": "x", "times": 1, "median_ms": 1000.0, "slowest_ms": 1000.0},
    ]


def test_texts_are_found_wherever_they_stand() -> None:
    assert _texts({"a": [{"b": "x"}, 1, None], "c": "y"}) == ["x", "y"]


def test_parallel_jobs_hand_their_error_on() -> None:
    done: list[int] = []

    def fail() -> None:
        raise BrokerError("no")

    with pytest.raises(BrokerError, match="no"):
        in_parallel([fail, lambda: done.append(1)], 10)
    assert done == [1]
