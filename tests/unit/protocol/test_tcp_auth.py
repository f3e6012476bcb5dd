from __future__ import annotations

import hmac
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mempalace_broker.protocol.tcp_auth import (
    AUTH,
    MAX_LINE,
    PROVE,
    AuthFailure,
    AuthState,
    ClientSide,
    ServerSide,
    hmac_sha256,
    is_token,
    proof,
)

TOKEN, OTHER = "5a" * 32, "5b" * 32
PORT = 21_000
C, S = bytes(range(32)), bytes(range(100, 132))
randoms = st.binary(min_size=32, max_size=32)


def sides(client: str = TOKEN, server: str = TOKEN) -> tuple[ClientSide, ServerSide]:
    return ClientSide(client, C, PORT), ServerSide(server, S, PORT)


def talk(client: ClientSide, server: ServerSide, flip: int = -1) -> list[bytes]:
    """Carry messages until nobody says anything more; bit number `flip` of all that is said is turned over."""
    said: list[bytes] = []
    at, data = 0, client.start()
    for side in (server, client, server, client):
        if 0 <= flip - at < 8 * len(data):
            bit = flip - at
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            data = bytes(changed)
        at += 8 * len(data)
        said.append(data)
        data = side.feed(data)
    return said


def test_a_relay_to_another_port_fails_and_learns_nothing() -> None:
    """Somebody took the usual port while the broker was down, which moved to the next; both know the token."""
    client, server = ClientSide(TOKEN, C, PORT), ServerSide(TOKEN, S, PORT + 1)
    talk(client, server)
    assert (client.state, client.failure) == (AuthState.FAILED, AuthFailure.WRONG_PROOF)
    assert server.state == AuthState.OPEN
    server.feed(prove(proof(TOKEN, "client", C.hex(), S.hex(), PORT)))
    assert (server.state, server.failure) == (AuthState.FAILED, AuthFailure.WRONG_PROOF)


def test_both_know_the_token() -> None:
    client, server = sides()
    said = talk(client, server)
    assert (client.state, server.state) == (AuthState.PROVED, AuthState.PROVED)
    assert [json.loads(line).get("method") for line in said] == [AUTH, None, PROVE, None]
    assert max(map(len, said)) < MAX_LINE / 4


@given(randoms, randoms, randoms)
def test_nothing_said_holds_the_token_and_it_is_not_in_a_repr(token: bytes, c: bytes, s: bytes) -> None:
    assume(len({token, c, s}) == 3)
    client, server = ClientSide(token.hex(), c, PORT), ServerSide(token.hex(), s, PORT)
    said = b"".join(talk(client, server)) + repr((client, server)).encode()
    assert server.state == AuthState.PROVED
    assert token.hex().encode() not in said
    assert token not in said
    assert c.hex() not in repr(client)


BITS = 8 * len(b"".join(talk(*sides())))


@given(st.integers(0, BITS - 1))
def test_any_bit_turned_over_ends_it(flip: int) -> None:
    client, server = sides()
    talk(client, server, flip)
    assert (client.state, server.state) != (AuthState.PROVED, AuthState.PROVED)
    if server.state == AuthState.PROVED:  # only its last message, "you are in", was changed
        assert flip >= BITS - 8 * len(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')


def test_every_single_bit() -> None:
    for flip in range(BITS):
        client, server = sides()
        talk(client, server, flip)
        assert (client.state, server.state) != (AuthState.PROVED, AuthState.PROVED), flip


def test_the_client_says_no_more_than_a_number_to_one_with_another_token() -> None:
    client, server = sides(server=OTHER)
    answer = server.feed(client.start())
    assert client.feed(answer) == b""
    assert (client.state, client.failure) == (AuthState.FAILED, AuthFailure.WRONG_PROOF)
    assert server.state == AuthState.OPEN


def test_a_client_with_another_token_that_does_not_look() -> None:
    server = ServerSide(TOKEN, S, PORT)
    server.feed(ClientSide(OTHER, C, PORT).start())
    error = server.feed(prove(proof(OTHER, "client", C.hex(), S.hex(), PORT)))
    assert (server.state, server.failure) == (AuthState.FAILED, AuthFailure.WRONG_PROOF)
    assert "error" in json.loads(error)
    assert server.feed(prove(proof(TOKEN, "client", C.hex(), S.hex(), PORT))) == b""  # one attempt for each number
    assert server.state == AuthState.FAILED


def prove(digits: str) -> bytes:
    request = {"jsonrpc": "2.0", "id": 1, "method": PROVE, "params": {"proof": digits}}
    return json.dumps(request).encode() + b"\n"


@given(randoms)
def test_replay_fails(fresh: bytes) -> None:
    said = talk(*sides())
    server = ServerSide(TOKEN, fresh, PORT)
    server.feed(said[0] + said[2])
    assert (server.state == AuthState.PROVED) == (fresh == S)
    client = ClientSide(TOKEN, fresh, PORT)
    client.start()
    client.feed(said[1])
    assert (client.state == AuthState.OPEN) == (fresh == C)


def test_reflection_fails() -> None:
    """A listener that has no token sends back what it hears, or has another connection answer."""
    client = ClientSide(TOKEN, C, PORT)
    client.start()
    mirror = {
        "jsonrpc": "2.0",
        "id": 0,
        "result": {"nonce": C.hex(), "proof": proof(TOKEN, "server", C.hex(), C.hex(), PORT)},
    }
    assert client.feed(json.dumps(mirror).encode() + b"\n") == b""
    assert client.failure == AuthFailure.WRONG_PROOF

    server = ServerSide(TOKEN, S, PORT)
    answer = json.loads(server.feed(ClientSide(TOKEN, C, PORT).start()))
    server.feed(prove(answer["result"]["proof"]))
    assert server.failure == AuthFailure.WRONG_PROOF


def test_roles_and_order_of_numbers_matter() -> None:
    a, b = C.hex(), S.hex()
    assert (
        len({proof(TOKEN, role, *numbers, PORT) for role in ("server", "client") for numbers in ((a, b), (b, a))}) == 4
    )
    assert proof(TOKEN, "server", a, b, PORT) != proof(OTHER, "server", a, b, PORT)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b"\0" * 2000,
        b"x" * 10_000,
        b"\n",
        b"[]\n",
        b"[" * 1000 + b"\n",
        b'{"jsonrpc":"2.0","id":1,"method":"broker/status","params":{}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"broker/stop"}\n',
        b'{"jsonrpc":"2.0","id":0,"method":"broker/auth","params":{"wire":1,"nonce":"' + b"AB" * 32 + b'"}}\n',
        b'{"jsonrpc":"2.0","id":0,"method":"broker/auth","params":{"wire":1,"nonce":{"result":5}}}\n',
        b'{"jsonrpc":"2.0","id":0,"method":"broker/auth","params":{"wire":1}}\n',
        prove("00" * 32),
    ],
)
def test_whatever_else_comes_is_refused(data: bytes) -> None:
    server = ServerSide(TOKEN, S, PORT)
    said = server.feed(data)
    assert (server.state, server.failure) == (AuthState.FAILED, AuthFailure.GARBAGE)
    assert S.hex().encode() not in said
    assert said.endswith(b"\n")
    assert server.feed(ClientSide(TOKEN, C, PORT).start()) == b""


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_anything_in_any_cut_never_raises_and_never_gets_in(data: bytes, cuts: list[int]) -> None:
    client, server = sides()
    client.start()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        server.feed(data[start:end])
        client.feed(data[start:end])
    assert server.state != AuthState.PROVED
    assert client.state != AuthState.PROVED


@given(st.integers(1, 40))
def test_any_cut_of_the_good_one_gets_in(size: int) -> None:
    client, server = sides()
    data = client.start()
    for side in (server, client, server, client):
        data = b"".join(side.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert (client.state, server.state) == (AuthState.PROVED, AuthState.PROVED)


def test_what_comes_behind_the_proof_is_kept() -> None:
    client, server = sides()
    answer = client.feed(server.feed(client.start()))
    assert json.loads(server.feed(answer + b'{"id":1}\n{"half'))["result"] == {}
    server.feed(b'":1}\n')
    assert server.rest == b'{"id":1}\n{"half":1}\n'


def test_a_listener_that_says_too_much_is_left() -> None:
    for extra in (b"x", b"{}\n"):
        client, server = sides()
        client.feed(server.feed(client.start()) + extra)
        if client.state == AuthState.OPEN:
            client.feed(server.feed(prove(proof(TOKEN, "client", C.hex(), S.hex(), PORT))))
        assert (client.state, client.failure) == (AuthState.FAILED, AuthFailure.GARBAGE)


def test_another_wire_version_is_named() -> None:
    server = ServerSide(TOKEN, S, PORT)
    line = ClientSide(TOKEN, C, PORT).start().replace(b'"wire":1', b'"wire":2')
    error = server.feed(line)
    assert (server.state, server.failure) == (AuthState.FAILED, AuthFailure.REFUSED)
    client = ClientSide(TOKEN, C, PORT)
    client.start()
    client.feed(error)
    assert client.failure == AuthFailure.REFUSED
    assert "wire version 1, not 2" in client.text


def test_tokens() -> None:
    assert is_token(os.urandom(32).hex())
    for wrong in ("", "ab", "AB" * 32, "zz" * 32, "ab" * 33, " " + "a" * 63):
        assert not is_token(wrong)
        with pytest.raises(ValueError, match="a token has 32 bytes"):
            ServerSide(wrong, S, PORT)
    with pytest.raises(ValueError, match="a nonce 32"):
        ClientSide(TOKEN, b"short", PORT)


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_our_hmac_is_the_standard_one(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


def test_a_shim_that_uses_it_loads_neither_openssl_nor_hmac() -> None:
    source = Path(__file__).resolve().parents[3] / "src"
    code = (
        f"import sys; sys.path.insert(0, {str(source)!r})\n"
        "from mempalace_broker.protocol.tcp_auth import proof\n"
        "proof('ab' * 32, 'client', 'cd' * 32, 'ef' * 32, 21000)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"hashlib", "_hashlib", "hmac", "json", "typing", "enum", "secrets"} & set(done.stdout.split())


def test_a_listener_that_says_more_than_it_was_asked_is_not_believed() -> None:
    client, server = sides()
    proved = server.feed(client.feed(server.feed(client.start())))
    assert client.feed(proved + b"{}\n") == b""
    assert (client.state, client.failure) == (AuthState.FAILED, AuthFailure.GARBAGE)
