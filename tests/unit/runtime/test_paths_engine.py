"""The same palace and graph as the real mempalace finds, version by version, and the differences that we chose."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mempalace_broker.runtime.paths import resolve_palace
from tests.harness import engine_python

ASK = """
import json, os, sys
flag = sys.argv[1] if len(sys.argv) > 1 else ""
sys.argv = ["mempalace-mcp"] + (["--palace", flag] if flag else [])
import mempalace.mcp_server as server
if flag and hasattr(server, "_apply_server_flags"):
    server._apply_server_flags(palace=flag)
answer = {"path": os.path.realpath(server._config.palace_path), "graph": os.path.realpath(server._resolve_kg_path())}
os.write(int(os.environ["ANSWER_FD"]), json.dumps(answer).encode())
"""

# name: (flag, environment, config.json of ~/.mempalace or None, other files to make); {h} is the home
CASES: dict[str, tuple[str, dict[str, str], object, tuple[str, ...]]] = {
    "flag": ("{h}/f", {}, None, ()),
    "flag over all": ("{h}/f/../g", {"MEMPALACE_PALACE_PATH": "{h}/e"}, {"palace_path": "{h}/c"}, ()),
    "flag, relative": ("sub/p", {}, None, ()),
    "variable": ("", {"MEMPALACE_PALACE_PATH": "{h}/e"}, {"palace_path": "{h}/c"}, ()),
    "variable with tilde": ("", {"MEMPALACE_PALACE_PATH": "~/e"}, None, ()),
    "variable with dots": ("", {"MEMPALACE_PALACE_PATH": "{h}/a/b/../e"}, None, ()),
    "oldest variable": ("", {"MEMPAL_PALACE_PATH": "{h}/e"}, None, ()),
    "empty variable": ("", {"MEMPALACE_PALACE_PATH": ""}, {"palace_path": "{h}/c"}, ()),
    "config": ("", {}, {"palace_path": "{h}/c"}, ()),
    "config, relative": ("", {}, {"palace_path": "sub/c"}, ()),
    "config without palace": ("", {}, {"collection_name": "x"}, ()),
    "config broken": ("", {}, "{", ()),
    "default of an old installation": ("", {}, None, (".mempalace/palace/chroma.sqlite3",)),
    "old installation, XDG set": ("", {"XDG_CONFIG_HOME": "{h}/xdg"}, {}, ()),
}
# where 3.4.0 would go elsewhere: we go with the newest
NEWER: dict[str, tuple[str, dict[str, str], object, tuple[str, ...]]] = {
    "never installed": ("", {}, None, ()),
    "empty old folder": ("", {}, None, (".mempalace/palace/x",)),
    "XDG": ("", {"XDG_CONFIG_HOME": "{h}/xdg"}, None, ()),
    "XDG, relative": ("", {"XDG_CONFIG_HOME": "xdg"}, None, ()),
    "config dir": ("", {"MEMPALACE_CONFIG_DIR": "~/conf"}, {"palace_path": "{h}/c"}, ()),
    "config dir, blank": ("", {"MEMPALACE_CONFIG_DIR": " "}, {"palace_path": "{h}/c"}, ()),
    "short variable": ("", {"MEMPALACE_PALACE": "{h}/e"}, None, ()),
    "variables in order": ("", {"MEMPALACE_PALACE": "{h}/e", "MEMPAL_PALACE_PATH": "{h}/o"}, None, ()),
    "config with tilde": ("", {}, {"palace_path": "~/c"}, ()),
    "config with a mark": ("", {}, '\ufeff{"palace_path": "/c"}', ()),
    "config is a list": ("", {}, [], ()),
}


def build(home: Path, case: tuple[str, dict[str, str], object, tuple[str, ...]]) -> tuple[str, dict[str, str]]:
    flag, env, config, files = case
    home.mkdir()
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (home / ".mempalace").mkdir()
        (home / ".mempalace" / "config.json").write_text(text.replace("{h}", str(home)), encoding="utf-8")
    for name in files:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    return flag.format(h=home), {name: value.format(h=home) for name, value in env.items()}


def ask(version: str, flag: str, env: dict[str, str], home: Path) -> dict[str, str]:
    """What the real one says, in a process of its own."""
    read_fd, write_fd = os.pipe()
    with open(read_fd, "rb") as answer:
        try:
            subprocess.run(
                [str(engine_python(version)), "-c", ASK, *([flag] if flag else [])],
                env={"HOME": str(home), "PATH": os.environ["PATH"], "ANSWER_FD": str(write_fd), **env},
                cwd=home,
                check=True,
                capture_output=True,
                timeout=60,
                pass_fds=(write_fd,),
            )
        finally:
            os.close(write_fd)
        found: dict[str, str] = json.loads(answer.read())
    return found


def compare(version: str, case: tuple[str, dict[str, str], object, tuple[str, ...]], tmp_path: Path, cwd: None) -> None:
    home = Path(os.path.realpath(tmp_path)) / "h"
    flag, env = build(home, case)
    os.chdir(home)
    ours = resolve_palace(flag or None, env, str(home))
    assert {"path": ours.path, "graph": ours.graph} == ask(version, flag, env, home)


@pytest.fixture
def cwd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The working directory is restored after the test."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_as_both_versions(engine: str, name: str, tmp_path: Path, cwd: None) -> None:
    compare(engine, CASES[name], tmp_path, cwd)


@pytest.mark.parametrize("name", NEWER)
def test_as_the_newer_version(engine: str, name: str, tmp_path: Path, cwd: None) -> None:
    if engine == "3.4.0":
        pytest.skip("3.4.0 differs here, see runtime/paths.py")
    compare(engine, NEWER[name], tmp_path, cwd)
