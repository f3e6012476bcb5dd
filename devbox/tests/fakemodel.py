"""A fake model with the OpenAI chat API: calls one tool, then repeats its result. For agents in a container."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.background import BackgroundServer


class FakeModel(BackgroundServer):
    """Serves on loopback while its block runs.

    Args: tool: name of the agent's tool. arguments: for it.

    Attributes: port. offered: names of the tools in the first request. answers: texts of tool results.
    """

    def __init__(self, tool: str, arguments: Mapping[str, Any]) -> None:
        self.offered: list[str] = []
        self.answers: list[str] = []
        self._call = {"name": tool, "arguments": json.dumps(arguments)}
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        super().__init__(server)
        self.port: int = server.server_port

    def delta(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The model's message for this request, and its finish reason."""
        results = [message for message in request["messages"] if message["role"] == "tool"]
        if not results:
            self.offered = [tool["function"]["name"] for tool in request.get("tools", [])]
            call = {"index": 0, "id": "call_1", "type": "function", "function": self._call}
            return {"role": "assistant", "tool_calls": [call]}, "tool_calls"
        self.answers = [json.dumps(message["content"]) for message in results]
        return {"role": "assistant", "content": "finished"}, "stop"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                delta, reason = model.delta(request)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for choice in ({"delta": delta, "finish_reason": None}, {"delta": {}, "finish_reason": reason}):
                    chunk = {"id": "1", "object": "chat.completion.chunk", "model": "fake-model", "created": 1}
                    self.wfile.write(f"data: {json.dumps({**chunk, 'choices': [{'index': 0, **choice}]})}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        return Handler
