"""YAML with a list of servers: entries come, change and go, and no other byte does."""

from __future__ import annotations

import pytest

from mempalace_broker.cli.setup.machine import yaml
from mempalace_broker.cli.setup.machine.agents import AGENTS
from mempalace_broker.cli.setup.machine.plan import Outcome, Plan, plan, plan_removal
from mempalace_broker.errors import UsageError

SHIM = "/home/me/.local/bin/mp-shim"
(AGENT,) = (agent for agent in AGENTS if agent.form == "yaml")
PATH = ("mcpServers", "mempalace")

PLAIN = """\
# mine
name: Mine   # the name
version: 1.0.0
schema: v1
models:
  - name: "a: b"
    provider: ollama
mcpServers:
  # the first
  - name: other
    command: npx
    args:
      - -y
      - 'x # y'   # why
    env: {A: "b"}

# the end
rules: []
"""
NO_INDENT = "name: x\nversion: '1'\nmcpServers:\n- name: other\n  command: npx   # last\n"
LAST = "mcpServers:\n    -   name: other\n        command: npx"
FLOW = "mcpServers: [{name: other, command: npx}]  # all\nname: x\n"
EMPTY_LIST = "name: x\nmcpServers: []  # none\nrules: []\n"
NULL = "name: x\nmcpServers:\nrules: []\n"
NULL_LAST = "name: x\nmcpServers:"
TILDE = "mcpServers: ~ # none\nname: x\n"
WITHOUT = "name: x\nrules:\n  - |\n    text\n    more\n"
CUT_OFF = "rules:\n  - |\n    a text that ends without a line feed"
WINDOWS = PLAIN.replace("\n", "\r\n")
COMMENTS = "# nothing yet\n"
ALL = [PLAIN, NO_INDENT, LAST, FLOW, EMPTY_LIST, NULL, NULL_LAST, TILDE, WITHOUT, WINDOWS]


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("words", [[SHIM], [SHIM, "--palace", "/p é '\"#"]])
def test_beside_others_and_back_to_the_byte(text: str, words: list[str]) -> None:
    made = plan(AGENT, text, words)
    assert made.outcome is Outcome.ADD
    assert made.after is not None
    assert yaml.get(made.after, PATH) == {"name": "mempalace", "command": words[0], "args": words[1:]}
    assert yaml.get(made.after, ("mcpServers", "other")) == yaml.get(text, ("mcpServers", "other"))
    lines = made.after.splitlines()
    kept = [line for line in text.splitlines() if line not in lines]
    assert len(kept) <= (text in (FLOW, EMPTY_LIST, TILDE)), "every old line is there as it was"
    assert plan(AGENT, made.after, words) == Plan(Outcome.NOTHING, made.after)
    assert plan_removal(AGENT, made.after, text) == Plan(Outcome.RESTORE, text)


@pytest.mark.parametrize("text", [PLAIN, NO_INDENT, FLOW, WINDOWS, EMPTY_LIST])
def test_removed_without_a_backup(text: str) -> None:
    after = plan(AGENT, text, [SHIM]).after
    removed = plan_removal(AGENT, after, None)
    assert removed.outcome is Outcome.REMOVE
    if text is not EMPTY_LIST:  # nobody knows any more on which line the brackets were
        assert removed.after == text
    assert yaml.get(removed.after or "", PATH) is None


def test_a_file_that_is_not_there_gets_what_continue_needs() -> None:
    made = plan(AGENT, None, [SHIM])
    assert made.after == (
        "name: Local Assistant\nversion: 1.0.0\nschema: v1\n"
        f'mcpServers:\n  - name: "mempalace"\n    command: "{SHIM}"\n    args: []\n'
    )
    assert plan_removal(AGENT, made.after, None) == Plan(Outcome.RESTORE, None)


OWN = """\
mcpServers:
  - command: mempalace-mcp   # the memory
    name: mempalace
    args:
      - --palace
      - ~/p
    env:
      A: b  # keep
  - {name: other, command: npx}
"""


def test_mempalaces_own_becomes_ours_and_keeps_flags_environment_and_comments() -> None:
    made = plan(AGENT, OWN, [SHIM, "--palace", "/default"])
    assert made == Plan(Outcome.CONVERT, OWN.replace("command: mempalace-mcp ", f'command: "{SHIM}" '))
    assert plan_removal(AGENT, made.after, OWN) == Plan(Outcome.RESTORE, OWN)


def test_args_that_change() -> None:
    text = OWN.replace("mempalace-mcp", "uvx").replace(
        "- --palace\n      - ~/p", "- mempalace-mcp\n      - --read-only"
    )
    made = plan(AGENT, text, [SHIM])
    assert yaml.get(made.after or "", PATH)["args"] == ["--read-only"]
    assert "A: b  # keep" in (made.after or "")


def test_something_else_changed_since() -> None:
    now = (plan(AGENT, OWN, [SHIM]).after or "") + "# later\n"
    undone = plan_removal(AGENT, now, OWN)
    assert undone.outcome is Outcome.RESTORE
    assert yaml.get(undone.after or "", PATH) == yaml.get(OWN, PATH)
    assert (undone.after or "").endswith("# later\n")


def test_the_same_server_under_another_name_is_named() -> None:
    made = plan(AGENT, OWN.replace("name: mempalace", "name: memory"), [SHIM])
    assert made.outcome is Outcome.ADD
    assert "memory" in made.note


@pytest.mark.parametrize(
    "text",
    [
        "mcpServers: {",
        "a: b: c\n",
        "- a\n",
        "just words",
        "mcpServers:\n  other: {command: x}\n",
        "mcpServers: 7\n",
        "a: &x [1]\nmcpServers: *x\n",
        "{mcpServers: []}",
        "a: 1\n---\nb: 2\n",
        "mcpServers:\n  - name: mempalace\n    url: http://127.0.0.1:1/mcp\n",
        "mcpServers:\n  - name: mempalace\n    command: ssh\n    args: [host, mempalace-mcp]\n",
        "a: !!python/object:os.system x\n\tb: 1",
        COMMENTS,
        CUT_OFF,
    ],
)
def test_what_can_not_be_changed_safely_is_left(text: str) -> None:
    left = plan(AGENT, text, [SHIM])
    assert (left.outcome, left.after) == (Outcome.LEAVE, text)
    assert left.note
    assert left.hint
    assert plan_removal(AGENT, text, None).after == text


def test_a_bomb_is_refused_in_no_time() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    plan(AGENT, bomb, [SHIM])
    with pytest.raises(UsageError, match="larger than"):
        yaml.get("a: 1\n" * (1 << 19), PATH)
