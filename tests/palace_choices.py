"""What each version of mempalace makes of a set of environments: which palace it opens.

    python3 -m tests.palace_choices        records tests/data/palace-choices.json anew, from the packages themselves

mempalace's config module needs none of its dependencies, so a version is its package alone. In the file, `{h}` is the
home, and a palace belongs to all versions up to the next one that is named; null: mempalace does not start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parent / "data" / "palace-choices.json"
VERSIONS = ("3.4.0", "3.4.1", "3.5.0", "3.6.0", "3.7.0", "3.7.1", "3.8.0", "3.9.0", "3.10.0", "3.11.0")


class Case(NamedTuple):
    """One environment. `files` maps names below the home to their content; `{h}` is the home everywhere."""

    env: dict[str, str] = {}  # noqa: RUF012 - never changed
    files: dict[str, str] = {}  # noqa: RUF012 - never changed
    flag: str = ""

    def build(self, home: Path) -> dict[str, Any]:
        """Make the files, and return what `ASK` is to be asked."""
        home.mkdir(parents=True)
        for name, content in self.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace("{h}", str(home)).encode("utf-8", "surrogateescape"))
        env = {name: value.replace("{h}", str(home)) for name, value in self.env.items()}
        return {"flag": self.flag.replace("{h}", str(home)), "env": env, "home": str(home)}


OLD, NEW = ".mempalace/config.json", ".config/mempalace/config.json"
NAMED = '{"palace_path": "{h}/c"}'
CASES = {
    "never installed": Case(),
    "flag": Case(flag="{h}/f"),
    "flag over all": Case({"MEMPALACE_PALACE_PATH": "{h}/e"}, {OLD: NAMED}, "{h}/f/../g"),
    "flag, relative": Case(flag="sub/p"),
    "flag with a slash": Case(flag="{h}/f/"),
    "variable": Case({"MEMPALACE_PALACE_PATH": "{h}/e"}, {OLD: NAMED}),
    "variable with tilde": Case({"MEMPALACE_PALACE_PATH": "~/e"}),
    "variable with dots": Case({"MEMPALACE_PALACE_PATH": "{h}/a/b/../e"}),
    "variable, relative": Case({"MEMPALACE_PALACE_PATH": "sub//e/"}),
    "variable, quoted": Case({"MEMPALACE_PALACE_PATH": '"{h}/e"'}),
    "variable, blank": Case({"MEMPALACE_PALACE_PATH": "  "}),
    "variable, of another user": Case({"MEMPALACE_PALACE_PATH": "~no-such-user/e"}),
    "oldest variable": Case({"MEMPAL_PALACE_PATH": "{h}/e"}),
    "empty variable": Case({"MEMPALACE_PALACE_PATH": ""}, {OLD: NAMED}),
    "short variable": Case({"MEMPALACE_PALACE": "{h}/e"}),
    "short variable beside the oldest": Case({"MEMPALACE_PALACE": "{h}/e", "MEMPAL_PALACE_PATH": "{h}/o"}),
    "short variable beside a config": Case({"MEMPALACE_PALACE": "~/e"}, {OLD: NAMED}),
    "config": Case(files={OLD: NAMED}),
    "config, relative": Case(files={OLD: '{"palace_path": "sub/c"}'}),
    "config with tilde": Case(files={OLD: '{"palace_path": "~/c"}'}),
    "config with a mark": Case(files={OLD: "\ufeff" + NAMED}),
    "config of the new place with a mark": Case(files={NEW: "\ufeff" + NAMED}),
    "config without palace": Case(files={OLD: '{"collection_name": "x"}'}),
    "config, empty": Case(files={OLD: ""}),
    "config, broken": Case(files={OLD: "{"}),
    "config, twice": Case(files={OLD: NAMED + "{}"}),
    "config of an old editor": Case(files={OLD: NAMED.replace("c", "\udce4")}),
    "config in UTF-16": Case(files={OLD: "\udcff\udcfe{\0}\0"}),
    "config is a list": Case(files={OLD: "[]"}),
    "config beside people": Case(files={".mempalace/people_map.json": "{}", NEW: NAMED}),
    "both configs": Case(files={OLD: '{"palace_path": "{h}/old"}', NEW: NAMED}),
    "config of the new place": Case(files={NEW: NAMED}),
    "empty old folder": Case(files={".mempalace/palace/x": ""}),
    "graph alone": Case(files={".mempalace/knowledge_graph.sqlite3": ""}),
    "old palace": Case(files={".mempalace/palace/chroma.sqlite3": ""}),
    "old palace, XDG set": Case({"XDG_CONFIG_HOME": "{h}/xdg"}, {".mempalace/palace/chroma.sqlite3": ""}),
    "XDG": Case({"XDG_CONFIG_HOME": "{h}/xdg"}),
    "XDG with tilde": Case({"XDG_CONFIG_HOME": "~/xdg/"}),
    "XDG, relative": Case({"XDG_CONFIG_HOME": "xdg"}),
    "XDG, blank": Case({"XDG_CONFIG_HOME": " "}),
    "config folder": Case({"MEMPALACE_CONFIG_DIR": "{h}/conf"}),
    "config folder with a config": Case({"MEMPALACE_CONFIG_DIR": "~/conf"}, {"conf/config.json": NAMED}),
    "config folder beside an old config": Case({"MEMPALACE_CONFIG_DIR": "~/conf"}, {OLD: NAMED}),
    "config folder beside an old palace": Case(
        {"MEMPALACE_CONFIG_DIR": "~/conf"}, {".mempalace/palace/chroma.sqlite3": ""}
    ),
    "config folder, relative": Case({"MEMPALACE_CONFIG_DIR": "conf"}),
    "config folder, blank": Case({"MEMPALACE_CONFIG_DIR": " "}, {OLD: NAMED}),
}

# Answers cases in one process each, because mempalace reads its environment at import. {preload} and {ask} differ.
ASK = """
import json, os, sys
{preload}
for case in json.load(sys.stdin):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        continue
    flag, null = case["flag"], os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    os.environ.update(case["env"], HOME=case["home"])
    os.chdir(case["home"])
    {ask}
    with open("answer", "w") as file:
        json.dump([os.path.realpath(path) for path in found], file)
    os._exit(0)
"""
_CONFIG = """
    if flag:
        os.environ["MEMPALACE_PALACE_PATH"] = os.path.abspath(flag)
    import mempalace.config
    found = [mempalace.config.MempalaceConfig().palace_path]
"""


def ask(argv: list[str], cases: dict[str, Case], folder: Path, *, preload: str, code: str) -> dict[str, Any]:
    """The paths that a mempalace opens in each case, with `{h}` for the home; None where it does not start."""
    program = ASK.replace("{preload}", preload).replace("{ask}", code.strip())
    asked = [case.build(folder / str(number)) for number, case in enumerate(cases.values())]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    subprocess.run([*argv, "-c", program], input=json.dumps(asked).encode(), env=env, check=True, timeout=100)
    found: dict[str, Any] = {}
    for name, case in zip(cases, asked, strict=True):
        answer = Path(case["home"]) / "answer"
        text = answer.read_text(encoding="utf-8").replace(case["home"], "{h}") if answer.exists() else "null"
        found[name] = json.loads(text)
    return found


def recorded() -> dict[str, dict[str, str | None]]:
    """By case, the palace by version."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    return {
        name: {v: found[max((old for old in found if _key(old) <= _key(v)), key=_key)] for v in VERSIONS}
        for name, found in data.items()
    }


def _key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _record(folder: Path) -> dict[str, dict[str, str | None]]:
    found: dict[str, dict[str, str | None]] = {name: {} for name in CASES}
    last: dict[str, Any] = {}
    for version in VERSIONS:
        package = folder / version
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(package)]
        subprocess.run([*pip, f"mempalace=={version}"], check=True)
        preload = f"sys.path.insert(0, {str(package)!r})"
        answers = ask([sys.executable], CASES, folder / f"homes-{version}", preload=preload, code=_CONFIG)
        for name, answer in answers.items():
            if name not in last or last[name] != answer:
                last[name] = answer
                found[name][version] = answer and answer[0]
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        text = json.dumps(_record(Path(temporary).resolve()), indent=1)
    DATA.write_text(text + "\n", encoding="utf-8")
