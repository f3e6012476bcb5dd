"""The broker's TCP listener, with a real broker and engine, against whoever finds the port.

After each test a good client still works, the broker is the same, and neither its log nor its status has learned a
secret.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker.tcp.gate import HANDSHAKE_S, MOST
from mempalace_broker.broker.tcp.refusals import LONGEST_DELAY_S
from mempalace_broker.errors import EXIT_CONFIG, EXIT_HELD, EXIT_OK, BrokerUnavailable, HandshakeRefused
from mempalace_broker.protocol.tcp_auth import AUTH, PROVE, ClientSide, proof
from tests import harness
from tests.harness import World, eventually, payload
from tests.rawpeer import RawPeer
from tests.tcptools import connect, listener

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("tcp")]  # one world for all

SILENT = 1000
HTTP = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"clientInfo": {"name": "far"}}}


class Door:
    """The listener of a world's broker. Each comes from an address of its own, so that refusals wait for it alone."""

    _numbers = itertools.count(2)

    def __init__(self, world: World) -> None:
        self.world = world
        self.source = f"127.0.0.{next(self._numbers)}"

    @property
    def endpoint(self) -> str:
        record = self.world.record() or {}
        return str(next(end for end in record["endpoints"] if end.startswith("tcp://")))

    @property
    def where(self) -> tuple[str, int]:
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    @property
    def token(self) -> str:
        return str((self.world.record() or {})["token"])

    def raw(self) -> socket.socket:
        """A connection on which nothing was said."""
        sock = socket.create_connection(self.where, 10, source_address=(self.source, 0))
        sock.settimeout(20)
        return sock

    def peer(self) -> RawPeer:
        """A client that has proved itself."""
        return RawPeer(self.world.broker(), connect(self.endpoint, self.token))

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self.world.broker().status()["tcp"]
        return told

    def refused(self, kind: str) -> int:
        return int(self.status()["refused"].get(kind, 0))


def call(peer: RawPeer, number: object) -> float:
    """One call of the engine; seconds."""
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call"}
    before = len(peer.lines)
    began = time.perf_counter()
    peer.send({**message, "params": {"name": "mempalace_kg_stats", "arguments": {}}})
    answer = peer.wait_lines(before + 1)[before]
    took = time.perf_counter() - began
    assert json.loads(answer)["id"] == number
    assert payload(json.loads(answer))["triples"] == 0
    return took


def rest_of(sock: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except ConnectionResetError:
        pass  # it hung up on bytes that it has not read
    return found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    harness.require_engine("newest")
    with World("newest", env={"MEMPALACE_BROKER_TCP": "127.0.0.1"}) as made:
        made.shim().initialize()  # ties the broker to the module
        made.broker().engine_pid()
        yield made


@pytest.fixture
def door(world: World) -> Iterator[Door]:
    before = world.broker().pid
    made = Door(world)
    token = made.token
    yield made
    with made.peer() as peer:
        call(peer, "afterwards")
    assert world.broker().pid == before, "the broker was replaced"
    secrets = {token, made.token}
    told = world.log() + json.dumps(world.broker().status()) + Path(f"/proc/{before}/cmdline").read_text()
    assert not [secret for secret in secrets if secret in told], "a secret was told"


def test_a_session_as_over_the_socket(world: World, door: Door) -> None:
    with door.peer() as peer:
        peer.send(INITIALIZE)
        assert json.loads(peer.wait_lines(1)[0])["result"]["serverInfo"]
        call(peer, "one")
        status = world.broker().status()
        session = next(s for s in status["sessions"] if s["agent"] == "far")
        assert session["via"] == "tcp 127.0.0.1"
        assert door.endpoint in status["endpoints"]
        peer.send_bytes(b"{nonsense\n")
        peer.wait(lambda lines: any("-32700" in line for line in lines))
        peer.close_stdin()
        eventually(lambda: peer.eof, what="the broker closed behind the last answer")
    shown = world.cli("status").stdout
    assert door.endpoint in shown
    assert door.token not in shown


def test_a_shim_by_that_endpoint(world: World, door: Door, tmp_path: Path) -> None:
    copy = tmp_path / "token"
    copy.write_text(door.token + "\n")
    copy.chmod(0o600)
    env = {"MEMPALACE_BROKER": door.endpoint, "MEMPALACE_BROKER_TOKEN_FILE": str(copy)}
    shim = world.shim(env=env)
    shim.initialize()
    assert shim.call_tool("kg_stats")["triples"] == 0
    ways = [session["via"] for session in world.broker().status()["sessions"]]
    assert "tcp 127.0.0.1" in ways


def test_another_token_on_either_side(door: Door) -> None:
    other = "ab" * 32
    with pytest.raises(HandshakeRefused, match="does not know our token"):
        connect(door.endpoint, other)
    with door.raw() as sock:
        side = ClientSide(other, os.urandom(32), door.where[1])
        sock.sendall(side.start())
        challenge = json.loads(sock.recv(4096))["result"]
        mine = proof(other, "client", side._nonce, challenge["nonce"], door.where[1])
        request = {"jsonrpc": "2.0", "id": 1, "method": PROVE, "params": {"proof": mine}}
        sock.sendall(json.dumps(request).encode() + b"\n" + json.dumps(INITIALIZE).encode() + b"\n")
        answers = [json.loads(line) for line in rest_of(sock).splitlines()]
    assert [answer["error"]["message"] for answer in answers] == ["not authenticated: the proof is wrong"]
    eventually(lambda: door.refused("wrong proof") >= 1, what="a refusal that is counted")


@pytest.mark.parametrize("method", ["initialize", "broker/hello", "broker/status", "broker/stop", "tools/call", PROVE])
def test_without_a_token_there_is_nothing(door: Door, method: str) -> None:
    before = door.world.broker().status()["counters"]
    with door.raw() as sock:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
        sock.sendall(json.dumps(request).encode() + b"\n")
        answers = [json.loads(line) for line in rest_of(sock).splitlines()]
    assert [answer["error"]["message"] for answer in answers] == [f"not authenticated: {AUTH} comes first"]
    assert door.world.broker().status()["counters"] == before


def test_a_handshake_that_was_recorded(door: Door) -> None:
    """The bytes of a good handshake, both ways, replayed by somebody who only overheard them."""
    heard = {"client": b"", "broker": b""}

    def pass_on(conn: socket.socket) -> None:
        with door.raw() as broker:
            back = threading.Thread(target=copy_all, args=(broker, conn, "broker"), daemon=True)
            back.start()
            copy_all(conn, broker, "client")
            broker.shutdown(socket.SHUT_RDWR)
            back.join(10)

    def copy_all(source: socket.socket, sink: socket.socket, name: str) -> None:
        while data := source.recv(4096):
            heard[name] += data
            sink.sendall(data)

    here = ("127.0.0.9", door.where[1])  # the port is part of the proof
    with listener(pass_on, *here) as between:
        sock = connect(between, door.token)
        with RawPeer(door.world.broker(), sock) as peer:
            call(peer, "recorded")
    assert b"kg_stats" in heard["client"]
    assert door.token.encode() not in heard["client"] + heard["broker"]

    before = door.refused("wrong proof")
    with door.raw() as sock:
        sock.sendall(heard["client"])
        said = rest_of(sock)
    assert b"triples" not in said
    eventually(lambda: door.refused("wrong proof") == before + 1, what="a refusal that is counted")

    def tell_again(conn: socket.socket) -> None:
        conn.recv(4096)
        conn.sendall(heard["broker"])
        conn.recv(4096)

    with listener(tell_again, *here) as rogue, pytest.raises((HandshakeRefused, BrokerUnavailable)):
        connect(rogue, door.token)


def test_a_relay_from_another_port_gets_nobody_in(door: Door) -> None:
    """Somebody took the port that a client names, while the broker was down, and passes all on to the new one."""
    heard = []

    def relay(conn: socket.socket) -> None:
        with door.raw() as broker:
            asked = conn.recv(4096)
            broker.sendall(asked)
            conn.sendall(broker.recv(4096))
            heard.append(conn.recv(4096))

    with listener(relay) as squatter, pytest.raises(HandshakeRefused, match="relays to another port"):
        connect(squatter, door.token)
    assert heard == [b""], "the client says no more than its first line"


@pytest.mark.parametrize("junk", [HTTP, TLS, b"\0" * 4096, b"\n" * 4096, b"[" * 900 + b"\n", b"\xff\xfe" * 2000])
def test_a_port_scan(door: Door, junk: bytes) -> None:
    before = door.refused("garbage")
    with door.raw() as sock:
        sock.sendall(junk)
        said = rest_of(sock)
    assert said.count(b"\n") <= 1
    assert not said or b"not authenticated" in said
    eventually(lambda: door.refused("garbage") == before + 1, what="a refusal that is counted")


def test_ten_megabytes_without_a_newline(door: Door) -> None:
    before = door.world.broker().status()["broker"]["rss_kb"]
    with door.raw() as sock:
        with contextlib.suppress(OSError):  # it hangs up long before the end, as it should
            sock.sendall(b"x" * 10_000_000)
        rest_of(sock)
    assert door.world.broker().status()["broker"]["rss_kb"] - before < 4000


def test_refusals_wait_longer_and_longer_and_good_clients_do_not(door: Door) -> None:
    waits = []
    for _ in range(4):
        with door.raw() as sock:
            began = time.perf_counter()
            sock.sendall(HTTP)
            rest_of(sock)
            waits.append(time.perf_counter() - began)
    assert all(wait > due * 0.875 for wait, due in zip(waits, (0.05, 0.1, 0.2, 0.4), strict=True)), waits
    assert waits[0] < waits[-1]
    assert max(waits) < LONGEST_DELAY_S + 2
    began = time.perf_counter()
    with door.peer() as peer:
        call(peer, "at once")
    assert time.perf_counter() - began < 2
    lines = [line for line in door.world.log().splitlines() if "refused over TCP" in line]
    assert 1 <= len(lines) <= 4, "one now, the rest together"


def test_a_thousand_that_say_nothing(door: Door) -> None:
    """Good clients come, work, and stay."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    unix = RawPeer(door.world.broker())
    try:
        with contextlib.ExitStack() as stack, unix, door.peer() as old:
            quiet = [call(old, f"before {n}") for n in range(50)]
            mute: list[socket.socket] = []
            comings: list[float] = []
            for n in range(SILENT):
                mute.append(stack.enter_context(door.raw()))
                if n % 50 == 49:
                    began = time.perf_counter()
                    with door.peer() as fresh:
                        call(fresh, "fresh")
                    comings.append(time.perf_counter() - began)
            busy = [call(old, f"during {n}") for n in range(50)]
            call(unix, "beside")
            told = door.status()
            assert told["waiting"] <= MOST
            pid = door.world.broker().pid
            assert len(os.listdir(f"/proc/{pid}/fd")) < MOST + 50
        print(
            f"call p50 {statistics.median(quiet) * 1e3:.1f} ms before, {statistics.median(busy) * 1e3:.1f} ms among "
            f"{SILENT} silent; coming in and a call: p50 {statistics.median(comings) * 1e3:.0f} ms, "
            f"max {max(comings) * 1e3:.0f} ms"
        )
        assert max(comings) < 3
        eventually(lambda: door.refused("crowded out") >= SILENT - MOST - 100, what="the crowd that is counted")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_that_drips_and_one_that_is_half_open(door: Door) -> None:
    """Each has its time and no more; what it says does not lengthen it."""
    line = ClientSide(door.token, os.urandom(32), door.where[1]).start()
    slow, half, stalled = door.raw(), door.raw(), door.raw()
    with slow, half, stalled:
        began = time.monotonic()
        half.shutdown(socket.SHUT_WR)
        stalled.sendall(line)
        assert b"proof" in stalled.recv(4096)
        assert rest_of(half) == b""
        assert time.monotonic() - began < 2
        gone = False
        for byte in line[:-1]:
            try:
                slow.sendall(bytes([byte]))
                slow.settimeout(0.25)  # one byte in so many seconds
                gone = slow.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                gone = True
            if gone or time.monotonic() - began > 2 * HANDSHAKE_S:
                break
        assert gone
        assert time.monotonic() - began < HANDSHAKE_S + 2
        assert rest_of(stalled) == b""
    eventually(lambda: door.refused("silent") >= 1, what="a silent one that is counted")
    eventually(lambda: door.refused("too slow") >= 1, what="a slow one that is counted")


def test_a_client_that_dies_without_a_word_is_noticed(door: Door) -> None:
    """The kernel probes an idle session: it has a keep-alive timer, not none, as is the default."""
    with door.peer() as peer:
        call(peer, "idle")
        ours = peer.sock.getsockname()[1]

        def timer() -> tuple[str, str]:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            kind, _, ticks = next(row for row in rows if row[2].endswith(f":{ours:04X}"))[5].partition(":")
            return kind, ticks

        eventually(lambda: timer()[0] == "02", what="the timer of keep-alive")  # until then it waits for an ACK
        assert int(timer()[1], 16) / os.sysconf("SC_CLK_TCK") <= 31


def test_a_new_token_ends_what_came_by_the_old_one(world: World, door: Door) -> None:
    old = door.token
    with door.peer() as peer:
        call(peer, "with the old one")
        made = json.loads(world.cli("token", "--new", "--json").stdout)
        eventually(lambda: peer.eof, what="the end of the session")
    assert made["token"] != old
    assert Path(made["file"]).stat().st_mode & 0o777 == 0o600
    eventually(lambda: door.token == made["token"], what="the new token in the record")
    with pytest.raises(HandshakeRefused):
        connect(door.endpoint, old)
    assert world.cli("token").stdout.strip() == made["token"]


# -- starting and stopping; without an engine, in worlds of their own


@pytest.fixture
def bare() -> Iterator[World]:
    with World(None) as made:
        yield made


def test_asked_for_on_the_command_line(bare: World) -> None:
    first = json.loads(bare.cli("ensure", "--tcp", "127.0.0.1").stdout)
    token = bare.cli("token").stdout.strip()
    assert first["tcp"] == Door(bare).endpoint
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert Door(bare).token == token
    assert (bare.state_root / "broker.json").stat().st_mode & 0o777 == 0o600
    connect(first["tcp"], token).close()
    other = bare.cli("ensure", "--tcp", "docker")
    assert other.returncode == EXIT_HELD
    assert "was started with tcp = 127.0.0.1" in other.stderr
    assert bare.cli("stop").returncode == EXIT_OK
    again = json.loads(bare.cli("ensure", "--tcp", "127.0.0.1").stdout)
    assert (again["tcp"], Door(bare).token) == (first["tcp"], token), "address and token outlive the broker"
    bare.broker().kill()
    third = json.loads(bare.cli("ensure", "--tcp", "127.0.0.1").stdout)
    assert third["tcp"] == first["tcp"]


def test_a_rogue_listener_on_the_port_of_a_broker_that_left(bare: World) -> None:
    bare.cli("ensure", "--tcp", "127.0.0.1")
    door = Door(bare)
    (host, port), token, endpoint = door.where, door.token, door.endpoint
    assert bare.cli("stop").returncode == EXIT_OK
    heard: list[bytes] = []

    def serve(conn: socket.socket) -> None:
        heard.append(conn.recv(4096))
        conn.sendall(b'{"jsonrpc":"2.0","id":0,"result":{"nonce":"%s","proof":"%s"}}\n' % (b"ab" * 32, b"cd" * 32))
        heard.append(conn.recv(4096))

    with listener(serve, host, port), pytest.raises(HandshakeRefused):
        connect(endpoint, token)
    assert heard[1:] == [b""]
    assert json.loads(heard[0])["method"] == AUTH
    assert token.encode() not in heard[0]


def test_never_everywhere_by_accident(bare: World) -> None:
    done = bare.cli("ensure", "--tcp", "0.0.0.0")
    assert done.returncode == EXIT_CONFIG
    assert "would listen on every address" in done.stderr
    assert "any" in done.stderr
    bare.settings.write_text('[broker]\ntcp = "::"\n')
    assert "would listen on every address" in bare.cli("ensure").stderr
    eventually(lambda: not bare.brokers(), what="the end of those that were refused")


def test_any_is_served_and_named(bare: World) -> None:
    bare.cli("ensure", "--tcp", "any")
    port = Door(bare).where[1]
    connect(f"tcp://127.0.0.1:{port}", Door(bare).token).close()
    assert any("exposed" in entry["what"] for entry in bare.broker().status()["degraded"])
    assert "exposed" in bare.cli("status").stdout


def test_an_interface_that_is_not_there(bare: World) -> None:
    done = bare.cli("ensure", "--tcp", "nothere0")
    assert done.returncode == EXIT_OK
    assert json.loads(done.stdout)["tcp"] is None
    assert "no interface nothere0" in done.stderr
    assert bare.broker().status()["tcp"]["endpoint"] is None
    assert "not listening on TCP" in bare.cli("status").stdout
