"""The command studio-expose: real servers, real clients, a real browser."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import connect

from devbox.tests.expose import servers
from devbox.tests.expose.conftest import Exposed
from devbox.tests.imagebox import IMAGE, REPO
from devbox.tests.needs import BIN, Program, require_program, run
from pi_devbox.expose.address import outward_address
from tests.browser import Browser
from tests.proctools import eventually, free_port

GIB = 1 << 30
TOKEN = "s3cret-t0ken"


def ask(where: tuple[str, int], question: bytes) -> bytes:
    """Send something, end, and return the whole answer."""
    with socket.create_connection(where, timeout=20) as sock:
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


# --- what goes through it


def test_a_websocket_talks_through_it_and_nothing_of_it_is_told(expose: Exposed) -> None:
    visited: list[str] = []
    with servers.studio("", visited) as port:
        program, (host, listens) = expose(port)
        with connect(f"ws://{host}:{listens}/ws?token={TOKEN}", max_size=None) as ws:
            for message in ("hello", "å" * 70_000, "x" * (3 << 20)):
                ws.send(message)
                assert ws.recv(20) == message.upper()
            pong = ws.ping(b"are you there")
            assert pong.wait(20)
        assert program.end() == 130
    assert visited == [f"/ws?token={TOKEN}"]
    assert "token" not in program.said
    assert TOKEN not in program.said


def test_a_gibibyte_arrives_unharmed(expose: Exposed) -> None:
    block = os.urandom(1 << 20)
    sent = hashlib.sha256()

    def send(conn: socket.socket) -> None:
        if not conn.recv(1):  # studio-expose looks whether anybody listens
            return
        for number in range(GIB // len(block)):
            piece = number.to_bytes(8) + block[8:]
            sent.update(piece)
            conn.sendall(piece)

    with servers.serving(send) as port:
        program, where = expose(port)
        got, count, buffer = hashlib.sha256(), 0, bytearray(1 << 20)
        with socket.create_connection(where, timeout=20) as sock:
            sock.sendall(b"g")
            while size := sock.recv_into(buffer):
                got.update(memoryview(buffer)[:size])
                count += size
        assert count == GIB
        assert got.digest() == sent.digest()
        assert psutil.Process(program.process.pid).memory_info().rss < 100 << 20


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for the ends of 500 connections in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_five_hundred_connections_at_once(expose: Exposed, many_files: None) -> None:
    with servers.serving(servers.echo) as port, contextlib.ExitStack() as stack:
        program, where = expose(port)
        socks = [stack.enter_context(socket.create_connection(where, timeout=30)) for _ in range(500)]
        for turn in range(3):
            for number, sock in enumerate(socks):
                sock.sendall(b"%d/%d" % (number, turn))
            for number, sock in enumerate(socks):
                assert sock.recv(100) == b"%d/%d" % (number, turn)
        relay = psutil.Process(program.process.pid)
        assert relay.num_threads() >= 501
        stack.close()
        eventually(lambda: relay.num_threads() == 1, what="the end of all connections")
        eventually(lambda: relay.num_fds() < 20, what="the end of their sockets")


def test_more_than_the_most_wait_for_their_turn(expose: Exposed) -> None:
    with servers.serving(servers.echo) as port:
        program, where = expose(port, "--max-connections", "2")
        with contextlib.ExitStack() as stack:
            first, _second = [stack.enter_context(socket.create_connection(where, timeout=20)) for _ in range(2)]
            third = stack.enter_context(socket.create_connection(where, timeout=20))
            third.sendall(b"me too")
            program.says("2 connections: further ones wait")
            first.close()
            assert third.recv(100) == b"me too"


def test_an_answer_that_takes_its_time_after_a_half_close(expose: Exposed) -> None:
    over = threading.Event()

    def slow(conn: socket.socket) -> None:
        question = b""
        while piece := conn.recv(100):
            question += piece
        over.wait(1.0)  # longer than socat waits after one side has ended
        conn.sendall(b"you said " + question)

    with servers.serving(slow) as port:
        _, where = expose(port)
        assert ask(where, b"hello") == b"you said hello"


# --- Studio comes and goes


def test_says_when_nothing_listens_and_works_when_it_does(expose: Exposed) -> None:
    port = free_port()
    program, where = expose(port)
    program.says(f"nothing listens on 127.0.0.1:{port} yet: type `/studio --no-browser --port {port}` in pi.")
    with pytest.raises(ConnectionResetError):
        ask(where, b"anybody?")
    for times in (1, 2):
        with servers.serving(servers.echo, port):
            program.says(f"Studio listens on 127.0.0.1:{port}.", times=times)
            assert ask(where, b"hello") == b"hello"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            ask(where, b"anybody?")
        program.says("any more; waiting for it", times=times)
    assert program.said.count(" yet:") == 1


def test_refused_connections_take_no_room(expose: Exposed) -> None:
    port = free_port()
    program, where = expose(port, "--max-connections", "1")
    for _ in range(5):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            ask(where, b"anybody?")
    with servers.serving(servers.echo, port):
        program.says("Studio listens")
        assert [ask(where, b"hello") for _ in range(5)] == [b"hello"] * 5


def test_a_connection_that_outlives_its_server_is_told(expose: Exposed) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(servers.serving(servers.echo))
        _, where = expose(port)
        with socket.create_connection(where, timeout=20) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            stack.close()
            assert sock.recv(1) == b""


def test_a_studio_that_accepts_nothing_is_called_stuck(expose: Exposed) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as studio, contextlib.ExitStack() as stack:
        port = studio.getsockname()[1]
        for _ in range(4):  # until its backlog is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        program, _ = expose(port)
        program.says(f"Studio on 127.0.0.1:{port} is stuck: it accepts no connection")
        program.says(f"`ss -ltnp 'sport = :{port}'` shows its process")
        assert "nothing listens" not in program.said
        stack.close()
        studio.settimeout(0.1)
        while "Studio listens" not in program.said:
            with contextlib.suppress(TimeoutError):
                studio.accept()[0].close()


NETWORK = """
ip link set lo up; ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up
ip addr add 10.213.88.1/24 dev d0; exec "$0" "$@"
"""


def test_an_address_that_the_container_lost_is_left(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    argv = ["/usr/bin/unshare", "--net", "sh", "-euc", NETWORK, str(BIN / "studio-expose"), "--bind", "d0"]
    program = Program(argv, tmp_path / "out", os.environ, tmp_path)
    try:
        program.says("relaying 10.213.88.1:8765")
        inside = ["nsenter", "--target", str(program.process.pid), "--net", "ip", "addr"]
        subprocess.run([*inside, "del", "10.213.88.1/24", "dev", "d0"], check=True)
        program.says("10.213.88.1 is no longer an address of this container.")
        program.says("interface d0 has no address that others could reach. Waiting")
        subprocess.run([*inside, "add", "10.213.88.2/24", "dev", "d0"], check=True)
        program.says("relaying 10.213.88.2:8765")
        assert program.end() == 130
    finally:
        program.end()


# --- how it starts and ends


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_and_its_connections(expose: Exposed, number: int, status: int) -> None:
    with servers.serving(servers.echo) as port:
        program, where = expose(port)
        with socket.create_connection(where, timeout=20) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            assert program.end(number) == status
            assert sock.recv(1) == b""
        assert "Traceback" not in program.said
        with pytest.raises(OSError):  # noqa: PT011 - refused, and by whom does not matter
            ask(where, b"x")


def test_nohup_keeps_it_running(expose: Exposed) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup hands it down
    try:
        program, where = expose(free_port())
    finally:
        signal.signal(signal.SIGHUP, before)
    program.process.send_signal(signal.SIGHUP)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask(where, b"still there?")
    assert program.process.poll() is None


def test_a_taken_port_is_said_with_a_hint(expose: Exposed, tmp_path: Path) -> None:
    _, (host, taken) = expose(free_port())
    done = run(["studio-expose", "--bind", host, "--listen-port", str(taken)], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"studio-expose: {host}:{taken} is taken: by another studio-expose")
    assert f"ss -ltnp 'sport = :{taken}'" in done.stderr


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["--bind", "0.0.0.0"], 1, "--bind any"),
        (["--bind", "127.0.0.1"], 1, "is loopback"),
        (["--bind", "203.0.113.7"], 1, "203.0.113.7:8765 is not an address of this container"),
        (["--port", "0"], 2, "'0' is not a number from 1 to 65535"),
        (["--port", "65536"], 2, "65536"),
        (["--listen-port", "http"], 2, "http"),
        (["--max-connections", "0"], 2, "0"),
        (["everything"], 2, "everything"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, argv: list[str], status: int, said: str) -> None:
    done = run(["studio-expose", *argv], tmp_path)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_studio_port_that_makes_no_sense(tmp_path: Path) -> None:
    done = run(["studio-expose"], tmp_path, STUDIO_PORT="eighty")
    assert done.returncode == 78
    assert done.stderr == "studio-expose: STUDIO_PORT='eighty' is not a port number. Hint: export STUDIO_PORT=8765\n"


def test_the_programs_in_the_hints_are_in_the_image() -> None:
    texts = [path.read_text() for path in (REPO / "devbox/src/pi_devbox/expose").glob("*.py")]
    named = {word for text in texts for word in re.findall(r"(?:hint=|Hint: |see ).*?`(\w+) ", text)}
    assert named == {"ss", "ip"}, "both come from one package"
    assert " iproute2 " in (IMAGE / "Dockerfile.base").read_text()


def test_help_explains_the_four_hops(tmp_path: Path) -> None:
    done = run(["studio-expose", "-h"], tmp_path)
    assert done.returncode == 0
    hops = ["ssh -L", "docker run -p 127.0.0.1:8765:8765", "studio-expose", "/studio --no-browser", "Exit codes:"]
    places = [done.stdout.index(hop) for hop in hops[:2]] + [done.stdout.index(hop, 400) for hop in hops[2:]]
    assert len(places) == 5
    assert run(["studio-expose", "--version"], tmp_path).stdout.startswith("studio-expose, version ")


# --- a browser

PAGE = """<!doctype html><title>waiting</title><script>
const token = new URLSearchParams(location.search).get("token");
const ws = new WebSocket(`ws://${location.host}/ws?token=${token}`);
ws.onopen = () => ws.send("from a browser");
ws.onmessage = event => { document.title = event.data; fetch("/seen?title=" + encodeURIComponent(document.title)); };
</script>"""


def test_a_browser_loads_a_page_and_talks_to_it(expose: Exposed) -> None:
    require_program("chromium", "chromium")
    visited: list[str] = []
    with servers.studio(PAGE, visited) as port, tempfile.TemporaryDirectory(prefix="mpb-browser-") as folder:
        program, (host, listens) = expose(port)
        with Browser(Path(folder) / "profile", "--no-sandbox", "--disable-quic") as browser:
            browser.go(f"http://{host}:{listens}/?token={TOKEN}")
            eventually(lambda: "/seen?title=FROM%20A%20BROWSER" in visited, 60, "the echo in the page's title")
        assert f"/?token={TOKEN}" in visited
        assert f"/ws?token={TOKEN}" in visited
        assert program.end() == 130
    assert TOKEN not in program.said


def test_the_outward_address_is_not_a_loopback_address() -> None:
    assert not outward_address().startswith("127.")
