"""studio-expose beside socat and a direct connection, in one run: throughput, round trip, connect.

python devbox/benchmarks/expose.py     needs socat (Debian: apt install socat)

All three are asked in turn, burst by burst, so that what else the machine does meets them alike. Figures are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from benchmarks.common import REPO, Lacking, dump, machine, machine_line, median, percentile
from benchmarks.suite import Options, Report, measured, say
from pi_devbox.expose.address import outward_address
from tests.proctools import eventually, free_port

DIRECT, SOCAT, OURS = "direct", "socat", "studio-expose"
MESSAGE = b"m" * 200
CHUNK = b"c" * (256 * 1024)
START_S = 20.0
_SERVE = "--serve"


@dataclass
class Rival:
    """A way to the server.

    Attributes:
        name: in tables. address: to connect to. process: the relay, None for the direct way.
        stream, streams: MB/s. trips, connects: microseconds.
    """

    name: str
    address: tuple[str, int]
    process: subprocess.Popen[bytes] | None = None
    stream: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    trips: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)
    connects: list[float] = field(default_factory=list)


# --- the server: one byte says what is wanted


def serve() -> int:
    """Echo after "e"; after "g<count>\\n" send that many bytes. Prints its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=_answer, args=(conn,), daemon=True).start()


def _answer(conn: socket.socket) -> None:
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with conn, contextlib.suppress(ConnectionError):  # it left: that is how a measurement ends
        wish = conn.recv(1)
        if wish == b"e":
            while data := conn.recv(65536):
                conn.sendall(data)
        elif wish == b"g":
            left = int(conn.makefile("rb", buffering=0).readline())
            while left > 0:
                conn.sendall(CHUNK[:left])
                left -= len(CHUNK)


# --- the client


def _download(address: tuple[str, int], count: int) -> None:
    buffer = bytearray(1 << 20)
    with socket.create_connection(address) as sock:
        sock.sendall(b"g%d\n" % count)
        while count:
            got = sock.recv_into(buffer)
            assert got, "cut off"
            count -= got


def _rate(address: tuple[str, int], count: int, streams: int) -> float:
    """MB/s of `streams` downloads of `count` bytes at once."""
    threads = [threading.Thread(target=_download, args=(address, count)) for _ in range(streams)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count * streams / (time.perf_counter() - begun) / 1e6


def _trips(sock: socket.socket, count: int) -> list[float]:
    """Microseconds of that many round trips on an echoing connection."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        sock.sendall(MESSAGE)
        left = len(MESSAGE)
        while left:
            left -= len(sock.recv(4096))
        took.append((time.perf_counter() - begun) * 1e6)
    return took


def _connect(address: tuple[str, int]) -> float:
    """Microseconds until a new connection has echoed its first byte."""
    begun = time.perf_counter()
    with socket.create_connection(address) as sock:
        sock.sendall(b"ex")
        assert sock.recv(1) == b"x"
        return (time.perf_counter() - begun) * 1e6


# --- the rivals


@contextlib.contextmanager
def rivals() -> Iterator[list[Rival]]:
    """Run all three."""
    if shutil.which("socat") is None:
        raise Lacking("no socat here; Debian: apt install socat")
    outward = outward_address()
    if not outward:
        raise Lacking("this machine has no address but loopback, and studio-expose relays to that")
    with contextlib.ExitStack() as stack:
        server = _start(stack, [sys.executable, __file__, _SERVE])
        assert server.stdout
        port = int(server.stdout.readline())
        found = [Rival(DIRECT, ("127.0.0.1", port))]
        for name, command in ((SOCAT, _socat), (OURS, _ours)):
            free = free_port(outward)
            found.append(Rival(name, (outward, free), _start(stack, command(outward, free, port))))
        for rival in found:
            _wait_for(rival.address)
        yield found


def _socat(outward: str, port: int, target: int) -> list[str]:
    return ["socat", f"TCP-LISTEN:{port},bind={outward},fork,reuseaddr,nodelay", f"TCP:127.0.0.1:{target},nodelay"]


def _ours(outward: str, port: int, target: int) -> list[str]:
    code = "import sys; from pi_devbox.expose import main; sys.exit(main())"
    return [
        *(sys.executable, "-c", code),
        *("--bind", outward, "--listen-port", str(port), "--port", str(target)),
    ]


def _start(stack: contextlib.ExitStack, argv: list[str]) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(REPO / "devbox" / "src")}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _wait_for(address: tuple[str, int]) -> None:
    def answers() -> bool:
        _connect(address)
        return True

    try:
        eventually(answers, START_S, "a relay that listens")
    except AssertionError as exc:
        raise Lacking(f"nothing answers at {address}") from exc


# --- the measurement


def measure(options: Options) -> Report:
    """Measure each rival in turn, for several rounds."""
    report = Report("studio-expose, socat, and no relay")
    rounds, size = options.rounds(9, 3), options.rounds(1 << 30, 1 << 28)
    with rivals() as found:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for rival in found:
                _bulk(rival, size)
            _small(found, options.rounds(40, 10))
    _tell(report, found)
    return report


def _bulk(rival: Rival, size: int) -> None:
    before = _cpu(rival)
    rival.stream.append(_rate(rival.address, size, 1))
    rival.cpu.append((_cpu(rival) - before) / size * 2**30)
    rival.streams.append(_rate(rival.address, size // 4, 8))


def _cpu(rival: Rival) -> float:
    """The processor seconds of the relay and its children."""
    if rival.process is None:
        return 0.0
    main = psutil.Process(rival.process.pid)
    times = [main.cpu_times()]
    for child in main.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile: then it is in its parent's children_*
            times.append(child.cpu_times())
    return float(sum(t.user + t.system + t.children_user + t.children_system for t in times))


def _small(found: list[Rival], bursts: int) -> None:
    """Bursts of round trips on one connection each, in turn; then connects, in turn."""
    with contextlib.ExitStack() as stack:
        echoes = [(rival, stack.enter_context(socket.create_connection(rival.address))) for rival in found]
        for _, sock in echoes:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"e")
            _trips(sock, 50)
        for _ in range(bursts):
            for rival, sock in echoes:
                took = _trips(sock, 100)
                rival.trips.append(median(took))
                rival.tails.append(percentile(took, 99))
    for _ in range(bursts):
        for rival in found:
            rival.connects.append(median([_connect(rival.address) for _ in range(5)]))


def _tell(report: Report, found: list[Rival]) -> None:
    columns: list[tuple[str, Callable[[Rival], list[float]], str]] = [
        ("1 stream, MB/s", lambda r: r.stream, ".0f"),
        ("8 streams, MB/s", lambda r: r.streams, ".0f"),
        ("relay's CPU, s/GiB", lambda r: r.cpu, ".2f"),
        ("round trip, us", lambda r: r.trips, ".1f"),
        ("its p99, us", lambda r: r.tails, ".1f"),
        ("connect + 1 byte, us", lambda r: r.connects, ".0f"),
    ]
    head = ["", *(name for name, _, _ in columns)]
    rows = [[rival.name, *(format(median(get(rival)), how) for _, get, how in columns)] for rival in found]
    report.add("Medians; 200 bytes a round trip", head, rows)
    by_name = {rival.name: rival for rival in found}
    ours, socat = by_name[OURS], by_name[SOCAT]
    for name, get in (("one stream", columns[0][1]), ("eight streams", columns[1][1])):
        report.check(f"throughput, {name}", median(get(ours)) / median(get(socat)), 1.0, "x socat", least=True)
    for index, name in ((3, "round trip"), (5, "connect")):
        get = columns[index][1]
        report.check(name, median(get(ours)) / median(get(socat)), 1.0, "x socat")


def main(argv: list[str]) -> int:
    """Return 0 if all targets are met, 1 if not, 2 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for orientation")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        report = measured(measure, Options(args.quick, []))
    except Lacking as exc:
        say(str(exc))
        return 2
    print(dump({"machine": machine(), **report.as_json()}) if args.json else f"{machine_line()}\n\n{report.text()}")
    return 0 if all(check.ok for check in report.checks) else 1


if __name__ == "__main__":
    sys.exit(serve() if _SERVE in sys.argv else main(sys.argv[1:]))
