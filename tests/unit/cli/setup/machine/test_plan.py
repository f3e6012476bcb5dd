"""What becomes of a configuration: from nothing, from others' entries, from mempalace's own, and back."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import json5
import pytest

from mempalace_broker.cli.setup.machine.agents import AGENTS, Agent
from mempalace_broker.cli.setup.machine.plan import Outcome, Plan, plan, plan_removal

SHIM = "/home/me/.local/bin/mp-shim"
BY_KEY = {agent.key: agent for agent in AGENTS}
CHANGED = [agent for agent in AGENTS if agent.form != "yaml"]
by_agent = pytest.mark.parametrize("agent", CHANGED, ids=lambda agent: agent.key)

CODEX = """\
# my settings
model = "x"   # the good one

[mcp_servers.other]
command = "x"   # keep
args = [
    "-a",  # why
]

[projects."/a b"]
trust_level = "trusted"
"""


def read(agent: Agent, text: str | None) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(text or "") if agent.form == "toml" else json5.loads(text or "{}")
    return found


def entry(agent: Agent, text: str | None, path: tuple[str, ...] = ()) -> dict[str, Any]:
    value: Any = read(agent, text)
    for key in path or agent.places[0].path:
        value = value[key]
    assert isinstance(value, dict)
    return value


def runs(found: dict[str, Any]) -> list[str]:
    command = found["command"]
    return command if isinstance(command, list) else [command, *found.get("args", [])]


def with_entry(agent: Agent, value: dict[str, Any], *, head: str = "") -> str:
    """A file that has that entry between others, as a person might have written it."""
    *path, name = agent.places[0].path
    if agent.form == "toml":
        lines = [f"{key} = {json.dumps(item)}" for key, item in value.items() if not isinstance(item, dict)]
        env = "".join(
            f"\n[mcp_servers.mempalace.env]\n{k} = {json.dumps(v)}\n" for k, v in value.get("env", {}).items()
        )
        return f"{CODEX}\n[mcp_servers.mempalace]  # mine\n" + "\n".join(lines) + "\n" + env + "\n[tui]\nx = 1\n"
    inner = f'{{"before": {{}}, // one\n  "{name}": {json.dumps(value)}, /* two */\n  "after": {{"command": "x"}},\n}}'
    for key in reversed(path):
        inner = f'{{"first": [1, 2],\n"{key}": {inner},\n}}'
    return head + inner + "\n"


@by_agent
@pytest.mark.parametrize("words", [[SHIM], [SHIM, "--palace", "/p q"]])
def test_from_nothing_and_back_to_nothing(agent: Agent, words: list[str]) -> None:
    made = plan(agent, None, words)
    assert made.outcome is Outcome.ADD
    assert runs(entry(agent, made.after)) == words
    assert plan(agent, made.after, words) == Plan(Outcome.NOTHING, made.after)
    assert plan_removal(agent, made.after, None) == Plan(Outcome.RESTORE, None)


OTHERS = """\
{
  // mine
  "theme": "dark",
  "%s": {
    "other": {"command": "x", "env": {"KEY": "secret"}},  // keep
  },
}
"""


@by_agent
def test_beside_others_and_back_to_the_byte(agent: Agent) -> None:
    text = CODEX if agent.form == "toml" else OTHERS % agent.places[0].path[0]
    made = plan(agent, text, [SHIM])
    assert made.outcome is Outcome.ADD
    expected = read(agent, text)
    expected[agent.places[0].path[0]]["mempalace"] = entry(agent, made.after)
    assert read(agent, made.after) == expected
    lines = (made.after or "").splitlines()
    assert not [line for line in text.splitlines() if line not in lines], "every old line is there as it was"
    assert plan_removal(agent, made.after, text) == Plan(Outcome.RESTORE, text)
    if agent.form != "toml":
        assert plan_removal(agent, made.after, None) == Plan(Outcome.REMOVE, text), "without a backup, too"


@by_agent
@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["mempalace-mcp"], []),
        (["/usr/local/bin/mempalace-mcp", "--palace", "~/p", "--read-only"], ["--palace", "~/p", "--read-only"]),
        (["/v/bin/python3.12", "-m", "mempalace.mcp_server", "--backend", "chroma"], ["--backend", "chroma"]),
        (["uvx", "--from", "mempalace==3.4.0", "mempalace-mcp", "--palace=/p"], ["--palace=/p"]),
    ],
)
def test_mempalaces_own_becomes_ours_and_keeps_flags_and_environment(
    agent: Agent, words: list[str], args: list[str]
) -> None:
    is_list = agent.key == "opencode"
    old: dict[str, Any] = {"command": words} if is_list else {"command": words[0], "args": words[1:]}
    old |= {"env": {"MEMPALACE_PALACE_PATH": "/p"}, "timeout": 9}
    text = with_entry(agent, old, head="" if agent.form == "toml" else "// head\n")
    made = plan(agent, text, [SHIM, "--palace", "/default"] if args else [SHIM])
    assert made.outcome is Outcome.CONVERT
    new = entry(agent, made.after)
    assert runs(new) == [SHIM, *args], "its own palace is kept"
    assert {key: new[key] for key in ("env", "timeout")} == {key: old[key] for key in ("env", "timeout")}
    assert plan(agent, made.after, [SHIM]).outcome is Outcome.NOTHING
    assert plan_removal(agent, made.after, text) == Plan(Outcome.RESTORE, text)


@by_agent
def test_something_else_changed_since(agent: Agent) -> None:
    """Then ours becomes what it was, and the rest stays as it is now."""
    old = {"command": ["mempalace-mcp"]} if agent.key == "opencode" else {"command": "mempalace-mcp", "args": []}
    before = with_entry(agent, old)
    now = (plan(agent, before, [SHIM]).after or "") + ("# later\n" if agent.form == "toml" else "// later\n")
    undone = plan_removal(agent, now, before)
    assert undone.outcome is Outcome.RESTORE
    assert runs(entry(agent, undone.after)) == ["mempalace-mcp"]
    assert "later" in (undone.after or "")
    gone = plan_removal(agent, now, "")
    assert gone.outcome is Outcome.REMOVE
    rest = read(agent, now)
    del rest[agent.places[0].path[0]]["mempalace"]
    assert read(agent, gone.after) == rest


@by_agent
def test_the_same_server_under_another_name_is_named(agent: Agent) -> None:
    value = {"command": ["mempalace-mcp"]} if agent.key == "opencode" else {"command": "mempalace-mcp", "args": []}
    text = (
        with_entry(agent, value)
        .replace('"mempalace":', '"memory":')
        .replace("[mcp_servers.mempalace]", "[mcp_servers.memory]")
    )
    made = plan(agent, text, [SHIM])
    assert made.outcome is Outcome.ADD
    assert "memory" in made.note
    assert "memory" in made.hint


@by_agent
def test_a_path_of_ours_that_changed_is_updated(agent: Agent) -> None:
    text = with_entry(agent, {"command": ["mp-shim", "-x"]} if agent.key == "opencode" else {"command": "mp-shim"})
    made = plan(agent, text, [SHIM])
    assert made.outcome is Outcome.UPDATE
    assert runs(entry(agent, made.after))[0] == SHIM


@by_agent
@pytest.mark.parametrize(
    "value",
    [
        {"command": "ssh", "args": ["host", "mempalace-mcp"]},
        {"command": "docker", "args": ["run", "mempalace-mcp"]},
        {"command": "sh", "args": ["-c", "mempalace-mcp"]},
        {"command": "mempalace-mcp", "args": ["--transport", "http"]},
        {"url": "http://127.0.0.1:8765/mcp"},
        {"command": 7},
    ],
)
def test_what_is_not_ours_to_change_is_left_and_named(agent: Agent, value: dict[str, Any]) -> None:
    if agent.key == "opencode" and isinstance(value.get("command"), str):
        value = {"command": [value["command"], *value["args"]]}
    text = with_entry(agent, value)
    left = plan(agent, text, [SHIM])
    assert (left.outcome, left.after) == (Outcome.LEAVE, text)
    assert left.note
    assert left.hint
    assert plan_removal(agent, text, None).after == text


@by_agent
@pytest.mark.parametrize("text", ["{", "]]", '{"a": 1', "\x00"])
def test_a_broken_file_is_left(agent: Agent, text: str) -> None:
    for left in (plan(agent, text, [SHIM]), plan_removal(agent, text, None)):
        assert (left.outcome, left.after) == (Outcome.LEAVE, text)
        assert "not" in left.note


def test_opencode_2_has_its_servers_one_deeper() -> None:
    agent = BY_KEY["opencode"]
    path = ("mcp", "servers", "mempalace")
    assert runs(entry(agent, plan(agent, None, [SHIM], second=True).after, path)) == [SHIM]
    text = '{"mcp": {"servers": {"other": {}}}}'
    assert runs(entry(agent, plan(agent, text, [SHIM]).after, path)) == [SHIM], "the file says which generation it is"


def test_agents_have_keys_of_their_own() -> None:
    assert len(BY_KEY) == len(AGENTS) >= 12


@pytest.mark.parametrize(
    "text", ['mcp_servers = { other = { command = "x" } }\n', "mcp_servers = 1\n", "[[mcp_servers]]\na = 1\n"]
)
def test_toml_that_has_no_room_for_a_table_is_left(text: str) -> None:
    left = plan(BY_KEY["codex"], text, [SHIM])
    assert (left.outcome, left.after) == (Outcome.LEAVE, text)


def test_toml_gets_a_table_of_its_own_at_the_end() -> None:
    after = plan(BY_KEY["codex"], CODEX, [SHIM]).after
    wanted = f'[mcp_servers.mempalace]\ncommand = "{SHIM}"\nargs = []\ntool_timeout_sec = 120\n'
    assert after == f"{CODEX}\n{wanted}"
