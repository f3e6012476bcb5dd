"""The official Python SDK under remote control: one JSON command per line on stdin, one answer per line on stdout.

    drive.py '{"command": "mp-shim", "args": [], "env": {}, "cwd": "/", "mode": "auto"}'
    drive.py '{"url": "http://127.0.0.1:1/mcp", "headers": {}, "mode": "auto"}'

Runs in the interpreter of .dev/clients/py-old or py-new, hence no import of ours. First line out:
{"connected": {...}}; then for {"op": "list"}, {"op": "call", "name": .., "args": ..}, {"op": "ping"} and
{"op": "request", "method": ..} one {"result": ..} or {"error": {"code": .., "message": ..}} each.
`mode` is an option of the newest SDK ("auto", "legacy"); an older one has only the second.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters  # type: ignore[import-not-found] # installed elsewhere
from mcp.client.stdio import stdio_client  # type: ignore[import-not-found] # installed elsewhere


def _plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def _answer(client: Any, order: dict[str, Any]) -> Any:
    if order["op"] == "list":
        return _plain(await client.list_tools())
    if order["op"] == "ping":
        return _plain(await client.send_ping())
    if order["op"] == "prompts":
        return _plain(await client.list_prompts())
    return _plain(await client.call_tool(order["name"], order["args"]))


async def _serve(client: Any, connected: dict[str, Any]) -> None:
    _say({"connected": connected})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            _say({"result": await _answer(client, json.loads(line))})
        except Exception as exc:  # noqa: BLE001 - whatever the SDK raises is the finding
            error = getattr(exc, "error", None)
            _say({"error": {"code": getattr(error, "code", None), "message": getattr(error, "message", repr(exc))}})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def _main(spec: dict[str, Any]) -> None:
    if "url" in spec:
        await _over_http(spec)
        return
    server = StdioServerParameters(command=spec["command"], args=spec["args"], env=spec["env"], cwd=spec["cwd"])
    if "mode" in spec:
        from mcp import Client  # type: ignore[attr-defined, unused-ignore] # only the newest SDK has it

        async with Client(server, mode=spec["mode"]) as client:
            info, protocol = client.server_info, client.protocol_version
            await _serve(client, {"serverInfo": info and _plain(info), "protocolVersion": protocol})
        return
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await _serve(session, _plain(await session.initialize()))


async def _over_http(spec: dict[str, Any]) -> None:
    if "mode" in spec:
        from mcp import Client  # type: ignore[attr-defined, unused-ignore]
        from mcp.client.streamable_http import streamable_http_client  # type: ignore[import-not-found]
        from mcp.shared._httpx_utils import create_mcp_http_client  # type: ignore[import-not-found]

        async with create_mcp_http_client(headers=spec["headers"]) as http:
            transport = streamable_http_client(spec["url"], http_client=http)
            async with Client(transport, mode=spec["mode"]) as client:
                info, protocol = client.server_info, client.protocol_version
                await _serve(client, {"serverInfo": info and _plain(info), "protocolVersion": protocol})
        return
    from mcp.client.streamable_http import streamablehttp_client

    connected = streamablehttp_client(spec["url"], headers=spec["headers"])
    async with connected as (read, write, _), ClientSession(read, write) as session:
        await _serve(session, _plain(await session.initialize()))


asyncio.run(_main(json.loads(sys.argv[1])))
