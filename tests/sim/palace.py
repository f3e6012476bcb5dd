"""The simulated disk: what writes leave in the palace, and the journal; and what each tool does to it."""

from __future__ import annotations

import json
from typing import Any

from mempalace_broker.protocol.tools import ToolRule, rule_for

APPEND, ADD, DELETE, READ = "append", "add", "delete", "read"

# tool -> (what it does, store)
TOOLS: dict[str, tuple[str, str]] = {
    "mempalace_diary_write": (APPEND, "palace"),
    "mempalace_event_append": (APPEND, "log"),
    "mempalace_add_drawer": (ADD, "palace"),
    "mempalace_delete_drawer": (DELETE, "palace"),
    "mempalace_kg_add": (ADD, "log"),
    "mempalace_mine": (ADD, "palace"),
    "mempalace_strange": (APPEND, "palace"),  # in no table of ours: an exclusive write
    "mempalace_search": (READ, "palace"),
    "mempalace_kg_query": (READ, "log"),
    "mempalace_event_wait": (READ, "log"),
}
WRITES = tuple(tool for tool, (does, _) in TOOLS.items() if does != READ)
READS = tuple(tool for tool, (does, _) in TOOLS.items() if does == READ)
LIST = [{"name": tool} for tool in TOOLS]


def rule(tool: str) -> ToolRule:
    return rule_for(tool)


class Disk:
    """What survives every kill. Tokens name writes: each is used once by the agents."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[str]] = {"palace": [], "log": []}
        self.journal = b""
        self.answers: bytes | None = None

    def run(self, tool: str, token: str) -> dict[str, Any]:
        """Carry a tool out; returns what it says."""
        does, store = TOOLS[tool]
        tokens = self.tokens[store]
        if does == APPEND or (does == ADD and token not in tokens):
            tokens.append(token)
        elif does == DELETE:
            if token not in tokens:
                return {"success": False, "error": "Drawer not found"}
            tokens.remove(token)
        elif does == READ:
            return {"found": list(tokens)}
        return {"success": True}


def response(id_: object, told: dict[str, Any]) -> bytes:
    body = {"jsonrpc": "2.0", "id": id_, "result": {"content": [{"type": "text", "text": json.dumps(told)}]}}
    return json.dumps(body).encode()
