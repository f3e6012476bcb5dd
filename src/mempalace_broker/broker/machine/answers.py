"""What is answered without the engine: `initialize`, `tools/list`, and the cache that survives restarts.

mempalace's `initialize` is a function of its version alone, so it never waits for an engine. `tools/list` comes from
the last engine of the same version and palace until the present one has said its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...protocol.constant_answers import SCHEMA, TEMPLATE, initialize_result, read_cache
from ...protocol.mcp import PROTOCOLS
from .schema import normalise_tools

if TYPE_CHECKING:
    from collections.abc import Mapping


class Answers:
    """The engine's constant answers. `version`: mempalace's, "" while unknown; `tools`: None while unknown."""

    def __init__(self, version: str = "") -> None:
        self.protocols: tuple[str, ...] = PROTOCOLS
        self.tools: list[Any] | None = None
        self.fresh = False
        self.expect(version)

    def expect(self, version: str) -> None:
        """mempalace `version` was found; what it answers to `initialize` follows from that."""
        self.version = version
        server = {"name": "mempalace", "version": version or "unknown"}
        self.template: dict[str, Any] = {**TEMPLATE, "serverInfo": server}

    def initialize(self, params: object) -> dict[str, Any]:
        """The result of `initialize`: the protocol asked for where it is known, else the newest."""
        known = {"protocols": list(self.protocols), "initialize": self.template}
        return initialize_result(params if isinstance(params, dict) else {}, known)

    def learn(self, hello: Mapping[str, Any]) -> bool:
        """Take over what the engine says of itself; True where that changes what a cache should hold."""
        before = self._state()
        self.version = str(hello.get("version", ""))
        initialize = hello.get("initialize")
        if isinstance(initialize, dict):
            result = dict(initialize.get("result", {}))
            result.pop("protocolVersion", None)
            self.template = result or self.template
            self.protocols = tuple(map(str, initialize.get("versions", ()))) or self.protocols
        tools = hello.get("tools")
        if isinstance(tools, list):
            self.tools = normalise_tools(tools)
        self.fresh = True
        return self._state() != before

    def _state(self) -> tuple[object, ...]:
        return self.version, self.protocols, self.template, self.tools

    def dump(self) -> bytes:
        """The cache file's content."""
        data = {
            "schema": SCHEMA,
            "version": self.version,
            "protocols": list(self.protocols),
            "initialize": self.template,
            "tools": self.tools,
        }
        return json.dumps(data, ensure_ascii=True, indent=1).encode()

    def load(self, data: bytes | None, version: str) -> None:
        """Take over a cache written for mempalace `version`; anything else, and anything damaged, is ignored."""
        cache = read_cache(data)
        if cache.get("version") != version:
            return
        if isinstance(cache.get("initialize"), dict) and isinstance(cache.get("tools"), list):
            self.version, self.template, self.tools = version, cache["initialize"], cache["tools"]
            self.protocols = tuple(map(str, cache.get("protocols", ()))) or self.protocols
