"""Agents on another machine: the cost of a call and of a session's start over ssh:// with a delay of 20 ms.

The line is a proxy before a real sshd that holds everything back by half a round trip in each direction, because not
every kernel has netem. `python3 benchmarks/line.py`; without root and without a network.
"""

from __future__ import annotations

import heapq
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver
from benchmarks.common import fmt, percentile
from benchmarks.driver import Outcome, Session, serial
from benchmarks.suite import Options, Report, main, say
from tests.harness import World
from tests.net.road import Road
from tests.net.sshd import HOST, require_sshd
from tests.proctools import free_port

ROUND_TRIP_S = 0.020
CALL_LIMIT_MS, START_ROUND_TRIPS = 1.0, 2.0
NEAR, PAUSED = "the broker's machine", "the same, a pause before each call"
SSH, LINE, ECHO, BARE = "ssh, no delay", "ssh over the line", "`ssh host cat` over the line", "the line itself"
_READY = "ready"
_CHUNK = 1 << 16


def hold_back(port: int, target: int, delay_s: float) -> None:
    """Body of the proxy: pass connections to `port` on to `target`, every byte `delay_s` later, in order."""
    listener = socket.create_server(("127.0.0.1", port))
    other: dict[socket.socket, socket.socket] = {}
    late: list[tuple[float, int, socket.socket, bytes]] = []  # due, order, to whom, what; b"" is the end
    count = 0
    print(_READY, flush=True)
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for sock in select.select([listener, *other], [], [], wait)[0]:
            if sock is listener:
                near, far = listener.accept()[0], socket.create_connection(("127.0.0.1", target))
                other |= {near: far, far: near}
                for side in (near, far):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                continue
            try:
                data = sock.recv(_CHUNK)
            except OSError:
                data = b""
            count += 1
            heapq.heappush(late, (time.monotonic() + delay_s, count, other[sock], data))
            if not data:
                del other[sock]
        while late and late[0][0] <= time.monotonic():
            *_, to, data = heapq.heappop(late)
            try:
                to.sendall(data) if data else to.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # it left meanwhile


@contextmanager
def line_to(target: int, delay_s: float) -> Iterator[int]:
    """The port of such a proxy."""
    port = free_port("127.0.0.1")
    argv = [sys.executable, __file__, "--proxy", str(port), str(target), str(delay_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline().strip() == _READY
        try:
            yield port
        finally:
            proxy.kill()


def round_trips(rounds: int) -> list[float]:
    """Measure a short request and its answer through the proxy, without ssh."""
    found = []
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = stack.enter_context(line_to(listener.getsockname()[1], ROUND_TRIP_S / 2))
        near = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        far = stack.enter_context(listener.accept()[0])
        for side in (near, far):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            began = time.perf_counter()
            near.sendall(b"x" * 200)
            far.sendall(far.recv(_CHUNK))
            near.recv(_CHUNK)
            found.append(time.perf_counter() - began)
    return found


def echoes(road: Road, rounds: int) -> list[float]:
    """Measure the same request and answer with `ssh host cat`: what any program pays that uses ssh."""
    found = []
    near, far = socket.socketpair()
    with near, subprocess.Popen(road.sshd.argv("-T", HOST, "cat"), stdin=far.fileno(), stdout=far.fileno()) as ssh:
        far.close()
        for n in range(rounds + 1):
            began = time.perf_counter()
            near.sendall(b"x" * 200)
            near.recv(_CHUNK)
            if n:  # the first one waits for the connection
                found.append(time.perf_counter() - began)
        ssh.kill()
    return found


def paused(session: Session, line: bytes, rounds: int) -> list[float]:
    """Measure calls before each of which all processes sleep for a round trip, as they do over the line."""
    outcome = Outcome(1)
    for _ in range(rounds):
        time.sleep(ROUND_TRIP_S)
        serial(session, [line], outcome)
    return outcome.all


def agent(world: World, env: Mapping[str, str]) -> Session:
    return Session([world.root / "bin/mp-shim"], env={**world.env, **env}, cwd=world.cwd, log=world.root / "agents.log")


def started(world: World, env: Mapping[str, str]) -> float:
    """Seconds from the start of an mp-shim to its answer to initialize."""
    began = time.perf_counter()
    session = agent(world, env)
    session.initialize()
    took = time.perf_counter() - began
    session.kill()
    return took


def measure(options: Options) -> Report:
    """Measure calls and starts on the broker's machine, over ssh without a delay, and over ssh with it."""
    require_sshd()
    report = Report(f"Over a line with a round trip of {ROUND_TRIP_S * 1e3:.0f} ms")
    rounds, starts = options.rounds(300, 100), options.rounds(40, 15)
    with World("newest") as world, Road(world) as short, Road(world) as long, ExitStack() as lines:
        for road, delay_s in ((short, 0.0), (long, ROUND_TRIP_S / 2)):
            road.sshd.port = lines.enter_context(line_to(road.sshd.port, delay_s))
            road.sshd.configure()
        world.shim().initialize()
        places: dict[str, Mapping[str, str]] = {NEAR: {}, SSH: short.env, LINE: long.env}
        calls: dict[str, list[float]] = {}
        for name, env in places.items():
            say(f"line: {name} ...")
            session = agent(world, env)
            session.initialize()
            session.tool("kg_stats")
            line = driver.call(1, "kg_stats", {})
            calls[name] = serial(session, [line] * rounds).all
            if name == NEAR:
                calls[PAUSED] = paused(session, line, rounds)
            session.kill()
        plain = {ECHO: echoes(long, rounds), BARE: round_trips(rounds)}
        begun: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(starts):  # interleaved: other work on the machine meets all alike
            for name, env in places.items():
                begun[name].append(started(world, env))
    _tell(report, calls | plain, begun)
    return report


def _tell(report: Report, calls: dict[str, list[float]], begun: dict[str, list[float]]) -> None:
    rows = [
        [name, *(_ms(found, p) for p in (0, 50, 99)), *(_ms(begun.get(name, []), p) for p in (0, 50))]
        for name, found in calls.items()
    ]
    head = ["", "call, fastest", "p50", "p99", "start, fastest", "p50"]
    report.add(
        "`kg_stats` one after the other, and from a session's start to the answer to initialize, ms:", head, rows
    )
    for what, p in (("fastest", 0), ("p50", 50)):
        base = percentile(calls[BARE], p)
        more, ssh, same = ((percentile(calls[name], p) - base) * 1e3 for name in (LINE, ECHO, PAUSED))
        note = f"ssh alone {fmt(ssh)}, the call alone after a pause {fmt(same + base * 1e3)}"
        report.check(f"call beyond the line's round trip, {what}", more, CALL_LIMIT_MS, " ms", note)
        more = (percentile(begun[LINE], p) - percentile(begun[SSH], p)) / ROUND_TRIP_S
        note = "one is that of initialize itself"
        report.check(
            f"start beyond one over ssh without delay, {what}", more, 1 + START_ROUND_TRIPS, " round trips", note
        )


def _ms(found: list[float], p: float) -> str:
    return fmt(percentile(found, p) * 1e3)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--proxy"]:
        hold_back(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    sys.exit(main([measure], __doc__))
