"""A real git server over HTTP: `git http-backend` behind a few lines of CGI, with repositories to push to."""

from __future__ import annotations

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *args: str) -> str:
    """Run git in a folder; return its output."""
    env = {**os.environ, **_IDENTITY}
    done = subprocess.run(["git", *args], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Repository:
    """A bare repository with one commit on main.

    Attributes: folder.
    """

    def __init__(self, folder: Path, *init: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        git(folder, "init", "-q", "--bare", "-b", "main", *init)
        self.commit("first")

    def commit(self, text: str, *, onto: str | None = "main", branch: str = "main") -> str:
        """Commit to a branch and return the id; onto None = without a parent, as after a force-push."""
        before = self.id_of(onto) if onto else ""
        made = git(self.folder, "commit-tree", self._tree(text), *(["-p", before] if before else []), "-m", text)
        git(self.folder, "update-ref", f"refs/heads/{branch}", made)
        return made

    def id_of(self, name: str) -> str:
        """The id of a branch, or ""."""
        return git(self.folder, "for-each-ref", "--format=%(objectname)", f"refs/heads/{name}")

    def _tree(self, text: str) -> str:
        (self.folder / "blob").write_text(text, encoding="utf-8")
        blob = git(self.folder, "hash-object", "-w", "blob")
        (self.folder / "blob").unlink()
        git(self.folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},file")
        return git(self.folder, "write-tree")


class GitServer:
    """Serves all repositories under a folder. Attributes: url, asked (paths of all requests)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> GitServer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                env = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(server.folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "GIT_CONFIG_GLOBAL": "/dev/null",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                }
                done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
                self._relay(done.stdout)

            do_POST = do_GET

            def _relay(self, answer: bytes) -> None:
                head, _, body = answer.partition(b"\r\n\r\n")
                fields = [line.partition(": ")[::2] for line in head.decode().splitlines()]
                status = next((value for name, value in fields if name == "Status"), "200 OK")
                self.send_response(int(status.split()[0]))
                for name, value in fields:
                    if name != "Status":
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler
