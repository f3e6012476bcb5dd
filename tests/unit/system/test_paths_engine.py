"""The same palace and graph as the real mempalace finds, version by version, and the differences that we chose."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mempalace_broker.system.paths import resolve_palace
from tests.harness import engine_python

# One interpreter per version loads the heavy libraries once, then forks for each case: mempalace itself, which reads
# HOME and argv at import, is imported afresh in each fork.
ASK = """
import json, os, sys
import chromadb
for case in json.load(sys.stdin):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0, case
        continue
    flag = case["flag"]
    os.environ.update(case["env"], HOME=case["home"])
    os.chdir(case["home"])
    sys.argv = ["mempalace-mcp"] + (["--palace", flag] if flag else [])
    import mempalace.mcp_server as server
    if flag and hasattr(server, "_apply_server_flags"):
        server._apply_server_flags(palace=flag)
    found = {"path": server._config.palace_path, "graph": server._resolve_kg_path()}
    with open(os.path.join(case["home"], "answer"), "w") as file:
        json.dump({name: os.path.realpath(path) for name, path in found.items()}, file)
    os._exit(0)
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


def test_as_the_real_one(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = CASES if engine == "3.4.0" else CASES | NEWER  # where 3.4.0 differs, see system/paths.py
    root = Path(os.path.realpath(tmp_path))
    asked = []
    ours = {}
    for number, (name, case) in enumerate(cases.items()):
        home = root / str(number)
        flag, env = build(home, case)
        asked.append({"flag": flag, "env": env, "home": str(home)})
        monkeypatch.chdir(home)
        identity = resolve_palace(flag or None, env, str(home))
        ours[name] = {"path": identity.path, "graph": identity.graph}
    subprocess.run(
        [str(engine_python(engine)), "-c", ASK],
        input=json.dumps(asked).encode(),
        env={"PATH": os.environ["PATH"], "HOME": str(root)},
        check=True,
        timeout=100,
    )
    theirs = {}
    for number, name in enumerate(cases):
        theirs[name] = json.loads((root / str(number) / "answer").read_text(encoding="utf-8"))
    assert ours == theirs
