"""A model without weights: whatever it is asked, it wants one more drawer stored, until its time is over.

It speaks what harnesses speak: Anthropic's messages, OpenAI's responses and chat completions, all as streams of events.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.background import BackgroundServer

TOOL = "add_drawer"
Event = tuple[str, dict[str, Any]]


class Model(BackgroundServer):
    """A server on a port of its own. A path begins with the name of whoever asks: /NAME/v1/...

    Attributes:
        asked: drawers that each harness was told to store, by name: their texts. told: all that they said of results.
    """

    def __init__(self, seconds: float, address: str = "127.0.0.1") -> None:
        self.asked: dict[str, list[str]] = {}
        self.told: dict[str, str] = {}
        self.offered: dict[str, list[str]] = {}
        self._seconds = seconds
        self._ends: dict[str, float] = {}
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
                _, name, *_ = self.path.split("/")
                events = list(model.answer(name, self.path.partition("?")[0], body))
                data = "".join(f"event: {kind}\ndata: {json.dumps(event)}\n\n" for kind, event in events)
                if "/chat/" in self.path:
                    data = "".join(f"data: {json.dumps(event)}\n\n" for _, event in events) + "data: [DONE]\n\n"
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(data.encode())))
                self.end_headers()
                self.wfile.write(data.encode())

            def do_GET(self) -> None:
                data = json.dumps({"object": "list", "data": [{"id": "fake-model", "object": "model"}]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer((address, 0), Handler)
        super().__init__(server)
        self.port = server.server_port

    def url(self, name: str, more: str = "", address: str = "127.0.0.1") -> str:
        """Where a harness finds it."""
        return f"http://{address}:{self.port}/{name}{more}"

    def answer(self, name: str, path: str, body: dict[str, Any]) -> Iterator[Event]:
        """The events that answer a request."""
        tools = body.get("tools") or []
        tool = _tool(tools)
        self.offered[name] = [str((one.get("function") or one).get("name")) for one in tools]
        self.told[name] = json.dumps(body.get("messages") or body.get("input") or "", ensure_ascii=False)
        call = None
        if tool and time.monotonic() < self._ends.setdefault(name, time.monotonic() + self._seconds):
            texts = self.asked.setdefault(name, [])
            texts.append(f"{name} saw heron {len(texts)} in the pond e")
            call = (tool[0], _arguments(tool, texts[-1]), tool[1])
        if path.endswith("/messages"):
            yield from _messages(call)
        elif path.endswith("/responses"):
            yield from _responses(call)
        else:
            yield from _chat(call)


Call = tuple[str, dict[str, Any], str]


def _tool(tools: list[dict[str, Any]]) -> tuple[str, str, bool] | None:
    """Name of the tool that stores, the namespace that it is in, and whether one tool stands for all (pi)."""
    for tool in tools:
        entry = tool.get("function") or tool
        if str(entry.get("name", "")).endswith(TOOL):
            return str(entry["name"]), "", False
        for inner in entry.get("tools") or []:  # Codex has namespaces
            if str(inner.get("name", "")).endswith(TOOL):
                return str(inner["name"]), str(entry["name"]), False
    names = [str((tool.get("function") or tool).get("name", "")) for tool in tools]
    return ("mcp", "", True) if "mcp" in names else None


def _arguments(tool: tuple[str, str, bool], text: str) -> dict[str, Any]:
    arguments = {"wing": "herons", "room": "pond", "content": text}
    return {"tool": "mempalace_mempalace_add_drawer", "args": json.dumps(arguments)} if tool[2] else arguments


def _messages(call: Call | None) -> Iterator[Event]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": "fake-model"}
    start: dict[str, Any] = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield "message_start", {"type": "message_start", "message": start}
    if call is None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta: dict[str, Any] = {"type": "text_delta", "text": "done"}
    else:
        block = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:20]}", "name": call[0], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
    yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    reason = "end_turn" if call is None else "tool_use"
    stop = {"stop_reason": reason, "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": stop, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def _responses(call: Call | None) -> Iterator[Event]:
    id_ = f"resp_{uuid.uuid4().hex}"
    if call is None:
        text = {"type": "output_text", "text": "done", "annotations": []}
        item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}
    else:
        name = {"name": call[0], **({"namespace": call[2]} if call[2] else {})}
        item = {"type": "function_call", "call_id": f"call_{uuid.uuid4().hex[:20]}", **name}
        item["arguments"] = json.dumps(call[1])
    yield "response.created", {"type": "response.created", "response": {"id": id_}}
    yield "response.output_item.done", {"type": "response.output_item.done", "output_index": 0, "item": item}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    usage_more = {"input_tokens_details": None, "output_tokens_details": None}
    done = {"id": id_, "output": [item], "usage": {**usage, **usage_more}}
    yield "response.completed", {"type": "response.completed", "response": done}


def _chat(call: Call | None) -> Iterator[Event]:
    chunk = {"id": f"chat-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": 1, "model": "fake-model"}

    def part(delta: dict[str, Any], reason: str | None = None) -> Event:
        return "", {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    if call is None:
        yield part({"role": "assistant", "content": "done"})
        yield part({}, "stop")
        return
    function = {"name": call[0], "arguments": json.dumps(call[1])}
    wanted = {"index": 0, "id": f"call_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}
    yield part({"role": "assistant", "content": None, "tool_calls": [wanted]})
    yield part({}, "tool_calls")
