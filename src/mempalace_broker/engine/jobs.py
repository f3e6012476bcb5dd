"""Jobs of mempalace's own daemon, run by its own code in this engine: see protocol/jobs.py."""

from __future__ import annotations

from typing import Any, Callable

from ..errors import INVALID_PARAMS, METHOD_NOT_FOUND
from ..protocol.jobs import JOB, nearest_tool
from . import payload

_MOST_SHOWN = 20_000  # characters of what a job printed: the journal keeps answers of up to 64 KB


def answer(request: Any, server: Any, module: Callable[[str], Any], palace: str) -> Any:
    """The response to any request; that of a job has what mempalace's daemon would have told as its result.

    Args:
        server: mempalace's. module: gives another module of mempalace's, None where this version lacks it.
        palace: the path that the engine works on, whatever the job says.
    """
    if not isinstance(request, dict) or request.get("method") != JOB:
        return server.handle_request(request)
    kind, tool = request["params"].get("kind"), request["params"].get("name")
    execute = getattr(module("service"), "execute_job", None)
    if execute is None:
        return payload.error_response(request.get("id"), METHOD_NOT_FOUND, "jobs came with mempalace 3.5")
    if tool != nearest_tool(kind):  # by which the broker chose what may run beside it
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
