"""What a shim answers by itself while no broker does: `initialize` and `tools/list` from the broker's cache file.

The file is written by `broker/machine/answers.py`. `mp-shim` imports this module late, and only then.
"""

from __future__ import annotations

from .jsonrpc import load
from .mcp import INITIALIZE, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
TEMPLATE = {"capabilities": {"tools": {}}, "serverInfo": {"name": "mempalace", "version": "unknown"}}


def constant_result(method: str, params: dict[str, Any], data: bytes | None) -> dict[str, Any] | None:
    """The result of `initialize` or `tools/list`; None where no engine has told its tools yet.

    Args:
        params: of `initialize`.
        data: content of the cache; missing, damaged or of another schema, it is taken for an empty one.
    """
    cache = read_cache(data)
    if method == INITIALIZE:
        return initialize_result(params, cache)
    tools = cache.get("tools")
    return {"tools": tools} if isinstance(tools, list) else None


def read_cache(data: bytes | None) -> dict[str, Any]:
    """The cache as a dict; {} where it is missing, damaged or of another schema."""
    try:
        body = load(data or b"")
    except ValueError:
        return {}
    return body if isinstance(body, dict) and body.get("schema") == SCHEMA else {}


def initialize_result(params: dict[str, Any], cache: dict[str, Any]) -> dict[str, Any]:
    """The result of `initialize`, from the cache or, without one, from what every mempalace says."""
    template = cache.get("initialize")
    known = cache.get("protocols")
    protocols = tuple(known) if isinstance(known, list) and known else PROTOCOLS
    asked = params.get("protocolVersion", protocols[-1])
    chosen = asked if asked in protocols else protocols[0]
    return {"protocolVersion": chosen, **(template if isinstance(template, dict) else TEMPLATE)}
