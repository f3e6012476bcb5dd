"""MCP as of 2026-07-28, on top of what mempalace speaks: no handshake, each request by itself.

The engine knows older versions only, whose answers lack a word that is now required; they are otherwise the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ....protocol.jsonrpc import TOOLS_LIST, result_line

if TYPE_CHECKING:
    from ....protocol.constant_answers import ConstantAnswers

VERSION = "2026-07-28"
DISCOVER = "server/discover"
_RESULT = re.compile(rb'"result":\s*\{\s*(\}?)')  # the first is the key: within a text the quotes are escaped
_COMPLETE = b'"resultType":"complete"'
_NOT_KEPT = {"ttlMs": 0, "cacheScope": "private"}  # tools change with the engine's version


def discovered(id_: Any, answers: ConstantAnswers) -> bytes:
    """The answer to DISCOVER: what we speak, and what `initialize` says of the server."""
    info = answers.template.get("serverInfo")
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": [VERSION, *answers.protocols],
        "capabilities": answers.template.get("capabilities", {}),
        **_NOT_KEPT,
    }
    if info is not None:
        result["_meta"] = {"io.modelcontextprotocol/serverInfo": info}
    if "instructions" in answers.template:
        result["instructions"] = answers.template["instructions"]
    return result_line(id_, result).rstrip(b"\n")


def completed(line: bytes, method: str) -> bytes:
    """An answer of the engine to `method` with what this version adds; an error stays as it is."""
    more = _COMPLETE + (b',"ttlMs":0,"cacheScope":"private"' if method == TOOLS_LIST else b"")
    return _RESULT.sub(lambda found: b'"result":{' + more + (found[1] or b","), line, count=1)
