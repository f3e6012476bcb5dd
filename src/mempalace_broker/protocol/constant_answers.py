"""The engine's constant answers, to `initialize` and `tools/list`, and the cache file that keeps them.

The broker writes the file; a shim reads it while no broker answers. `mp-shim` imports this module late, and only then.
"""

from __future__ import annotations

from .jsonrpc import INITIALIZE, PROTOCOLS, load_object
from .tools import without_writers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1


class ConstantAnswers:
    """What the mempalace of one version answers without looking at the palace.

    Attributes:
        version: mempalace's, "" while unknown.
        protocols: versions of MCP that it speaks, newest first.
        template: its result of `initialize` without the protocol's version.
        tools: its result of `tools/list`, None while unknown.
    """

    def __init__(self, version: str = "") -> None:
        self.version = version
        self.protocols: tuple[str, ...] = PROTOCOLS
        server = {"name": "mempalace", "version": version or "unknown"}
        self.template: dict[str, Any] = {"capabilities": {"tools": {}}, "serverInfo": server}
        self.tools: list[Any] | None = None

    def initialize(self, params: object) -> dict[str, Any]:
        """Return the result of `initialize`: the protocol version asked for if it is known, else the newest."""
        oldest = self.protocols[-1]
        asked = params.get("protocolVersion", oldest) if isinstance(params, dict) else oldest
        return {"protocolVersion": asked if asked in self.protocols else self.protocols[0], **self.template}

    def result(self, method: str, params: object, *, read_only: bool = False) -> dict[str, Any] | None:
        """Return the result of `initialize` or `tools/list`; None while no engine has listed its tools.

        Args:
            read_only: leave out the tools that write.
        """
        if method == INITIALIZE:
            return self.initialize(params)
        if self.tools is None:
            return None
        return {"tools": without_writers(self.tools) if read_only else self.tools}

    def encode(self) -> bytes:
        """Return the content of the cache file."""
        import json

        data = {
            "schema": SCHEMA,
            "version": self.version,
            "protocols": list(self.protocols),
            "initialize": self.template,
            "tools": self.tools,
        }
        return json.dumps(data, ensure_ascii=True, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> ConstantAnswers:
        """Read a cache file; one that is missing, damaged or of another schema counts as empty."""
        answers = ConstantAnswers()
        body = load_object(data)
        if body.get("schema") != SCHEMA or not isinstance(body.get("initialize"), dict):
            return answers
        answers.version = str(body.get("version", ""))
        answers.template = body["initialize"]
        protocols, tools = body.get("protocols"), body.get("tools")
        if isinstance(protocols, list) and protocols:
            answers.protocols = tuple(map(str, protocols))
        if isinstance(tools, list):
            answers.tools = tools
        return answers
