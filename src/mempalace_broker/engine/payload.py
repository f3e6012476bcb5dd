"""JSON in and out of the engine: exactly as `mempalace-mcp` would read and print it, but always valid."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from ..errors import INTERNAL_ERROR, NOT_EXECUTED, PARSE_ERROR
from ..protocol.engine_frames import MAX_PAYLOAD
from ..protocol.jobs import JOB

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class BadRequest(Exception):
    """The payload is not JSON; `response` is the answer."""

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__(response["error"]["message"])
        self.response = response


def error_response(request_id: Any, code: int, message: str) -> dict[str, Any]:
    """A JSON-RPC error response."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def opening_error(told: object) -> str:
    """Return in words why a collection did not open; `told`: what mempalace keeps of it, a dict in newer versions."""
    if isinstance(told, dict):
        told = told.get("details") or told.get("error")
    return str(told or "it does not open")


def not_journalled(request: Any, why: str, hint: str) -> dict[str, Any]:
    """Return the answer to a write that the journal could not note before it began."""
    text = f"{tool_call(request)[0]} was not executed: {why}. Hint: {hint}; then send it again."
    return error_response(request_id(request), NOT_EXECUTED, text)


def decode_request(payload: bytes) -> Any:
    """Parse a client's line; invalid UTF-8 becomes U+FFFD, as on the stdin of `mempalace-mcp`.

    Raises:
        BadRequest: not JSON, a number beyond Python's digit limit, or nested too deeply.
    """
    try:
        return json.loads(payload.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:
        raise BadRequest(error_response(None, PARSE_ERROR, f"Parse error: {str(exc)[:200]}")) from exc


def request_id(request: Any) -> Any:
    """The id of a request, None if it has none."""
    return request.get("id") if isinstance(request, dict) else None


def tool_call(request: Any) -> tuple[str | None, dict[str, Any]]:
    """Return name and arguments of a tools/call, or of a job's nearest tool; (None, {}) for anything else."""
    if not isinstance(request, dict) or request.get("method") not in ("tools/call", JOB):
        return None, {}
    params = request.get("params")
    if not isinstance(params, dict):
        return None, {}
    name, arguments = params.get("name"), params.get("arguments")
    return (name if isinstance(name, str) else None), (arguments if isinstance(arguments, dict) else {})


def response_code(response: Any) -> int:
    """The error code of a response, 0 for a result."""
    error = response.get("error") if isinstance(response, dict) else None
    code = error.get("code") if isinstance(error, dict) else 0
    return code if isinstance(code, int) else INTERNAL_ERROR


def encode_response(response: Any) -> bytes:
    """A response as one line of UTF-8 without its newline; empty for no response (a notification)."""
    if response is None:
        return b""
    try:
        return _ENCODER.encode(response).encode("utf-8")
    except ValueError:  # a lone surrogate, NaN or an infinity somewhere
        return _encode_odd(response)


def encode_answer(request: Any, response: Any) -> bytes:
    """The response to a request, as the broker takes it: an error in place of what can't be encoded or is too large."""
    try:
        body = encode_response(response)
        if len(body) > MAX_PAYLOAD:
            raise ValueError(f"it has {len(body)} bytes, and the broker takes {MAX_PAYLOAD}")
        return body
    except (TypeError, ValueError, RecursionError) as exc:
        print(f"an answer can't be encoded: {exc}", file=sys.stderr, flush=True)
        return encode_response(error_response(request_id(request), INTERNAL_ERROR, "Internal error"))


def _encode_odd(response: Any) -> bytes:
    """Print a lone surrogate as '?', as `mempalace-mcp` does, but return the id unchanged."""
    body = json.loads(json.dumps(response, ensure_ascii=False).encode("utf-8", "replace"))
    if isinstance(body, dict):
        body["id"] = response.get("id")
    return json.dumps(_finite(body), ensure_ascii=True).encode("ascii")


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
