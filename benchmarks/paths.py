"""What each way to the broker costs, against a bare echo over the same way: over none may the broker add more than it
adds over unix.

The ways: its unix socket; the same through a bind mount, from another container's namespaces; forwarded by ssh; through
`ssh host mempalace-broker dial-stdio`; TCP. Echo answers with as many bytes as the broker. Rounds are interleaved over
all ways. Wants Linux, root and openssh-server; a way that can't be had here is left out, and the report says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver
from benchmarks.common import REPO, fmt, median, own_bin, percentile
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, main, say
from benchmarks.world import BROKER, MARK, World
from mempalace_broker.route.endpoint import parse
from mempalace_broker.route.tcp import TcpRoute
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.private import VARIABLE as PRIVATE
from tests import netbox
from tests.net.sshd import HOST, Sshd
from tests.net.sshd import lacking as no_sshd
from tests.proctools import eventually

MORE_P50_MS, MORE_P99_MS = 0.15, 1.5  # that the broker may add beyond what it adds over unix
UNIX, BIND, FORWARD, STDIO, TCP = "unix", "bind mount", "ssh forward", "ssh dial-stdio", "tcp"
CALL = driver.call(1, "kg_query", {"entity": "palace"})
WAIT_S = 30.0

Exchange = Callable[[int], list[float]]  # so many calls, one after the other: seconds each

ECHO = """
import os, socket, sys, threading
path, answer = sys.argv[1], b"x" * (int(sys.argv[2]) - 1) + b"\\n"
def serve(peer):
    if peer.family == socket.AF_INET:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(65536):
        peer.sendall(answer * data.count(b"\\n"))
def listen(sock):
    sock.listen()
    while True:
        threading.Thread(target=serve, args=(sock.accept()[0],), daemon=True).start()
tcp, unix = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
unix.bind(path)
threading.Thread(target=listen, args=(unix,), daemon=True).start()
print(tcp.getsockname()[1], flush=True)
listen(tcp)
"""
CLIENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from benchmarks.paths import serial, unix
socks = [unix(path) for path in sys.argv[2:]]
print("ready", flush=True)
for line in sys.stdin:
    which, count = map(int, line.split())
    print(json.dumps(serial(socks[which], count)), flush=True)
"""
JOIN = "import socket, sys; from mempalace_broker.cli.dial_stdio import join; \
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); join(s.detach(), 0, 1)"


def unix(path: str) -> socket.socket:
    """A connection to it."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WAIT_S)
    sock.connect(path)
    return sock


def serial(sock: socket.socket, count: int) -> list[float]:
    """Calls one after the other: seconds each."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        sock.sendall(CALL)
        said = sock.recv(65536)
        while not said.endswith(b"\n") or said == b"\n":  # dial-stdio begins with an empty line
            more = sock.recv(65536)
            if not more:
                raise ConnectionError(f"it ended: {said[-200:]!r}")
            said += more
        took.append(time.perf_counter() - begun)
    return took


class Ways:
    """Opens every way twice: to the broker, and to an echo beside it."""

    def __init__(self, world: World, stack: contextlib.ExitStack) -> None:
        self.world = world
        self.stack = stack
        self.found: dict[str, tuple[Exchange, Exchange]] = {}
        self.missing: list[str] = []
        record = world.record()
        self.broker = next(e for e in record["endpoints"] if e.startswith("unix:")).removeprefix("unix:")
        self.tcp = next((e for e in record["endpoints"] if e.startswith("tcp:")), "")
        self.token = str(record.get("token") or "")
        self.echo = str(world.base / "echo.sock")
        with contextlib.closing(unix(self.broker)) as sock:
            sock.sendall(CALL)
            size = len(sock.makefile("rb").readline())
        self.echo_port = self._start_echo(size)

    def _start_echo(self, size: int) -> int:
        argv = [sys.executable, "-c", ECHO, self.echo, str(size)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=self.world.env)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        assert process.stdout is not None
        with process.stdout:
            return int(process.stdout.readline())

    def _add(self, name: str, broker: socket.socket, echo: socket.socket) -> None:
        self.stack.callback(broker.close)
        self.stack.callback(echo.close)
        self.found[name] = (lambda n: serial(broker, n), lambda n: serial(echo, n))

    def open(self) -> None:
        """All that can be had."""
        self._add(UNIX, unix(self.broker), unix(self.echo))
        self._open_tcp()
        if lack := netbox.lacking():
            self.missing.append(f"{BIND}: {lack}")
        else:
            self._open_bind()
        if lack := no_sshd():
            self.missing.append(f"ssh: {lack}")
        else:
            self._open_ssh()

    def _open_tcp(self) -> None:
        if not self.tcp:
            self.missing.append(f"{TCP}: the broker does not listen")
            return
        clock = Clock()
        route = TcpRoute(parse(self.tcp, ""), self.token, Deadline.after(clock, WAIT_S))
        raw = route.run().sock
        broker = socket.socket(fileno=raw.detach())
        broker.settimeout(WAIT_S)
        echo = socket.create_connection(("127.0.0.1", self.echo_port), WAIT_S)
        echo.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._add(TCP, broker, echo)

    def _open_bind(self) -> None:
        inside = "/home/dev/.mempalace"
        box = self.stack.enter_context(netbox.Box("paths", {self.world.base: inside}))
        names = [f"{inside}/{os.path.basename(path)}" for path in (self.broker, self.echo)]
        argv = box.argv([sys.executable, "-c", CLIENT, str(REPO), *names])
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.stack.enter_context(process)
        assert process.stdin is not None
        assert process.stdout is not None
        self.stack.callback(process.stdin.close)
        assert process.stdout.readline() == "ready\n"

        def exchange(which: int) -> Exchange:
            def run(count: int) -> list[float]:
                print(which, count, file=process.stdin, flush=True)
                assert process.stdout is not None
                took: list[float] = json.loads(process.stdout.readline())
                return took

            return run

        self.found[BIND] = (exchange(0), exchange(1))

    def _open_ssh(self) -> None:
        env = {name: self.world.env[name] for name in ("HOME", "PATH", MARK, PRIVATE, "MEMPALACE_BROKER_ENGINE")}
        sshd = Sshd(self.world.root / "s", env=env)
        self.stack.callback(sshd.close)
        control, ends = str(sshd.folder / "c"), [str(sshd.folder / name) for name in ("b", "e")]
        words = ["-N", "-M", "-S", control, "-o", "ExitOnForwardFailure=yes"]
        for end, path in zip(ends, (self.broker, self.echo), strict=True):
            words += ["-L", f"{end}:{path}"]
        master = subprocess.Popen(sshd.argv(*words, HOST), stdin=subprocess.DEVNULL)
        self.stack.callback(master.wait)
        self.stack.callback(master.terminate)
        eventually(lambda: all(map(os.path.exists, (control, *ends))), WAIT_S, "ssh's forwards")
        self._add(FORWARD, unix(ends[0]), unix(ends[1]))
        python = own_bin() / "python"
        join = f"exec {python} -c '{JOIN}' {self.echo}"
        commands = ("exec mempalace-broker dial-stdio", join)
        self._add(STDIO, *(self._command(sshd.argv("-S", control, HOST, command)) for command in commands))

    def _command(self, argv: list[str]) -> socket.socket:
        """Our end of a command's stdin and stdout."""
        ours, theirs = socket.socketpair()
        ours.settimeout(WAIT_S)
        with theirs:
            process = subprocess.Popen(argv, stdin=theirs.fileno(), stdout=theirs.fileno())
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        return ours


@contextlib.contextmanager
def ways(options: Options) -> Iterator[Ways]:
    """A broker with a warm engine, and all ways to it."""
    more: Mapping[str, str] = {"MEMPALACE_BROKER_TCP": "127.0.0.1"}
    with World(options.newest, BROKER, palace=prepared(options.newest, 1000), env=more) as world:
        (session,) = world.ready(1)
        session.tool("kg_add", subject="palace", predicate="has", object="rooms")
        world.wait_engine()
        with contextlib.ExitStack() as stack:
            found = Ways(world, stack)
            found.open()
            yield found


def measure(options: Options) -> Report:
    """Every way, broker and echo in turn."""
    say("paths ...")
    report = Report("What each way to the broker costs")
    with ways(options) as opened:
        rounds: dict[str, tuple[list[list[float]], list[list[float]]]] = {name: ([], []) for name in opened.found}
        for number in range(options.rounds(13, 5)):
            for name, pair in opened.found.items():
                for kept, exchange in zip(rounds[name], pair, strict=True):
                    took = exchange(options.rounds(400, 100))
                    if number:  # the first round warms up
                        kept.append(took)
        report.notes += [f"Not measured: {what}." for what in opened.missing]
    _tell(report, rounds)
    return report


def _ms(rounds: list[list[float]], p: float) -> float:
    """Median over the rounds of their percentile."""
    return median(percentile(took, p) for took in rounds) * 1e3


def _tell(report: Report, rounds: Mapping[str, tuple[Any, Any]]) -> None:
    rows, added = [], {}
    for name, (broker, echo) in rounds.items():
        cells = [_ms(kept, p) for kept in (echo, broker) for p in (50, 99)]
        added[name] = (cells[2] - cells[0], cells[3] - cells[1])
        rows.append([name, *map(fmt, cells), *map(fmt, added[name])])
    head = ["", "echo p50", "p99", "broker p50", "p99", "added p50", "p99"]
    report.add("`kg_query`, one call at a time, ms (medians of rounds):", head, rows)
    for name in list(added)[1:]:
        for index, (p, limit) in enumerate(((50, MORE_P50_MS), (99, MORE_P99_MS))):
            more = added[name][index] - added[UNIX][index]
            report.check(f"added over {name} beyond unix, p{p}", more, limit, " ms")


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
