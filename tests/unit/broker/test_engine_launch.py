"""How an engine is started: nothing leads its interpreter astray, and the palace is named as the client named it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker.broker.engine_launch import engine_argv, engine_env, package_root
from mempalace_broker.protocol.palace import PalaceIdentity

INTERPRETER = "/opt/venv/bin/python"


def argv(identity: PalaceIdentity, journal: str | None = None, *, tune: bool = True) -> list[str]:
    return engine_argv(INTERPRETER, identity, rfd=5, wfd=6, journal=journal, tune=tune)


def options(words: list[str]) -> dict[str, str]:
    given = words[4:]
    return dict(zip(given[::2], given[1::2], strict=True))


def test_every_setting_has_its_flag() -> None:
    identity = PalaceIdentity("/p", "/p/knowledge_graph.sqlite3", "flag", "chroma", "/link")
    words = argv(identity, "/root/broker.journal", tune=False)
    assert words[0] == INTERPRETER
    assert words[3] == package_root()
    assert options(words) == {
        "--rfd": "5",
        "--wfd": "6",
        "--palace": "/link",
        "--real": "/p",
        "--by": "flag",
        "--backend": "chroma",
        "--journal": "/root/broker.journal",
        "--tune": "0",
    }


def test_what_was_not_chosen_is_not_passed() -> None:
    words = options(argv(PalaceIdentity("/p", "/g", "default")))
    assert set(words) == {"--rfd", "--wfd", "--palace", "--real", "--by", "--tune"}
    assert words["--tune"] == "1"


@pytest.mark.parametrize("by", ["env", "config", "default"])
def test_without_the_flag_the_palace_goes_by_environment(by: str) -> None:
    assert engine_env({}, PalaceIdentity("/p", "/g", by, name="/link"), {})["MEMPALACE_PALACE_PATH"] == "/link"


def test_with_the_flag_the_environment_says_nothing_of_it() -> None:
    assert "MEMPALACE_PALACE_PATH" not in engine_env({}, PalaceIdentity("/p", "/g", "flag"), {})


def test_the_users_settings_go_on_and_what_leads_astray_does_not() -> None:
    env = {"HOME": "/h", "MEMPALACE_EMBEDDING_MODEL": "minilm", "PYTHONHOME": "/x", "VIRTUAL_ENV": "/y"}
    out = engine_env(env, PalaceIdentity("/p", "/g", "flag"), {})
    assert out["HOME"] == "/h"
    assert out["MEMPALACE_EMBEDDING_MODEL"] == "minilm"
    assert out["MEMPALACE_HUB_FORWARD"] == "0"
    assert out["MEMPALACE_MCP_IDLE_HOURS"] == "0"
    assert not {"PYTHONHOME", "VIRTUAL_ENV"} & set(out)
    assert env["PYTHONHOME"] == "/x"


def test_the_users_own_variables_reach_the_engine_and_can_not_undo_ours() -> None:
    own = {"PGPASSWORD": "secret", "HOME": "/other", "MEMPALACE_HUB_FORWARD": "1"}
    out = engine_env({"HOME": "/h"}, PalaceIdentity("/p", "/g", "flag"), own)
    assert (out["PGPASSWORD"], out["HOME"], out["MEMPALACE_HUB_FORWARD"]) == ("secret", "/other", "0")


def test_the_bootstrap_loads_our_package_and_leaves_the_path_alone(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('imported from the working directory')")
    words = engine_argv(sys.executable, PalaceIdentity("/p", "/g", "flag"), rfd=5, wfd=6, journal=None, tune=True)
    done = subprocess.run([*words[:4], "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--rfd" in done.stdout
