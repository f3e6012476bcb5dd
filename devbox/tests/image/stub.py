"""An HTTP server on loopback with scripted answers: right ones, wrong ones, or none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

SHA_TYPE = "application/vnd.github.sha"


@dataclass(frozen=True)
class Say:
    """One answer. `fault`: reset = none at all, hang = none until the stub closes, endless = a body without end."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Literal["", "reset", "hang", "endless"] = ""


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        """The header, or ""."""
        return self.headers.get("authorization", "")


class Stub:
    """Gives the answers of each path (without query) in turn, and repeats the last one; other paths are 404.

    Attributes: url, host ("127.0.0.1:port"), asked (all requests so far).
    """

    def __init__(self, script: Mapping[str, Say | Sequence[Say]]) -> None:
        self.script = {path: [say] if isinstance(say, Say) else list(say) for path, say in script.items()}
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self._heard = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False  # closing waits for them
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_asked(self, number: int, limit: float) -> None:
        """Wait until that many requests have come; fail after `limit` seconds."""
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.asked) >= number, limit), self.asked

    def answer(self, asked: Asked) -> Say:
        """The next answer for this request."""
        with self._heard:
            self.asked.append(asked)
            self._heard.notify_all()
            answers = self.script.get(asked.path.partition("?")[0], [Say(404)])
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                self._play(stub.answer(Asked(self.command, self.path, headers)))

            do_HEAD = do_GET

            def _play(self, say: Say) -> None:
                self.close_connection = True
                if say.fault == "hang":
                    stub.closing.wait()
                if say.fault in {"hang", "reset"}:
                    return
                self.send_response(say.status)
                for name, value in say.headers.items():
                    self.send_header(name, value)
                if say.fault != "endless":
                    self.send_header("Content-Length", str(len(say.body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client had enough, as it should
                    self._send(say)

            def _send(self, say: Say) -> None:
                if self.command == "HEAD":
                    return
                while say.fault == "endless" and not stub.closing.is_set():
                    self.wfile.write(b"x" * 65536)
                self.wfile.write(say.body)

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler
