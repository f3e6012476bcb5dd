"""Runs jobs of mempalace's own daemon with mempalace's code for them: see protocol/jobs.py."""

from __future__ import annotations

from typing import Any, Callable

from ..errors import INVALID_PARAMS, METHOD_NOT_FOUND
from ..protocol.jobs import JOB, nearest_tool
from . import payload

_MOST_SHOWN = 20_000  # characters of a job's output: the journal keeps answers of up to 64 KB


def answer(request: Any, server: Any, module: Callable[[str], Any], palace: str) -> Any:
    """Return the response to any request; the result of a job is that of mempalace's own daemon.

    Args:
        server: mempalace's. module: returns another module of mempalace's, None if this version lacks it.
        palace: the path that the engine works on, whatever the job says.
    """
    if not isinstance(request, dict) or request.get("method") != JOB:
        return server.handle_request(request)
    kind, tool = request["params"].get("kind"), request["params"].get("name")
    execute = getattr(module("service"), "execute_job", None)
    if execute is None:
        return payload.error_response(request.get("id"), METHOD_NOT_FOUND, "jobs came with mempalace 3.5")
    if tool != nearest_tool(kind):  # by its name the broker chose the lane
        return payload.error_response(request.get("id"), INVALID_PARAMS, f"{kind!r} is not a job of {tool!r}")
    told = execute(kind, {**request["params"]["arguments"], "palace_path": palace})
    for name in ("stdout", "stderr"):
        text = told.get(name, "")
        if len(text) > _MOST_SHOWN:
            told[name] = f"[...]\n{text[-_MOST_SHOWN:]}"
    forget = getattr(server, "_invalidate_overview_caches", None)
    if forget is not None:  # as its tools do after a mine
        forget()
    return {"jsonrpc": "2.0", "id": request.get("id"), "result": told}
