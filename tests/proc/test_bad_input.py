"""Bad input, through a real shim and on the broker's bare socket, with the real engine.

After each: every request was answered once, nothing else was said, the next good request works on the same session,
and a session beside it has not noticed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest

from mempalace_broker.errors import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from tests.harness import RpcProcess, World
from tests.rawpeer import RawPeer

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("bad input")]  # one world for all

Peer: TypeAlias = RpcProcess | RawPeer
Answer: TypeAlias = tuple[Any, int]  # (id, error code), code 0 for a result, ANY for either
ANY = 1
HUGE = 10**30
PROOF = "the next good request"


@pytest.fixture(scope="module")
def world(warm: World) -> World:
    """One for all of the module: what one test breaks, another would see."""
    return warm


@pytest.fixture(scope="module")
def bystander(world: World) -> RpcProcess:
    shim = world.shim()
    shim.initialize()
    return shim


@pytest.fixture(params=["shim", "socket"])
def peer(request: pytest.FixtureRequest, world: World, bystander: RpcProcess) -> Iterator[Peer]:
    """A session that has worked; afterwards it still works, and so does the one beside it."""
    pid = world.broker().pid
    with world.shim() if request.param == "shim" else RawPeer(world.broker()) as made:
        assert exchange(made, call("kg_stats", id="warm")) == [("warm", 0)]
        yield made
    assert bystander.call_tool("kg_stats", timeout=10)["triples"] == 0
    assert bystander.untaken() == []
    assert world.broker().pid == pid, "the broker was replaced"
    assert world.broker().status()["engine"]["generation"] == 1, "the engine was replaced"


def call(tool: str, /, *, id: Any, **arguments: Any) -> bytes:
    params = {"name": f"mempalace_{tool}", "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).encode()


def strict(line: str) -> dict[str, Any]:
    """An answer as a strict parser sees it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON: {line[:200]}")

    message: dict[str, Any] = json.loads(line, parse_constant=refuse)
    assert message["jsonrpc"] == "2.0"
    assert ("result" in message) != ("error" in message)
    return message


def exchange(peer: Peer, *lines: bytes, count: int | None = None) -> list[Answer]:
    """Send lines, then a good call; what came before the answer to that call, sorted where order is free."""
    before = len(peer.lines)
    peer.send_bytes(b"".join(line + b"\n" for line in lines))
    if count is not None:  # answers of lanes may come in any order: wait for them first
        peer.wait_lines(before + count)
    proof = f"{PROOF} {before}"
    peer.send_bytes(call("kg_query", id=proof, entity="nobody") + b"\n")
    quoted = json.dumps(proof)
    if isinstance(peer, RawPeer):
        peer.wait(lambda lines: any(quoted in line for line in lines[before:]))
    else:
        assert "result" in peer.wait_response(proof)
    answers = [strict(line) for line in peer.lines[before:]]
    good = [answer for answer in answers if answer["id"] == proof]
    assert len(good) == 1
    assert "facts" in good[0]["result"]["content"][0]["text"]
    return [(a["id"], a["error"]["code"] if "error" in a else 0) for a in answers if a["id"] != proof]


def request(method: Any = "ping", **members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method} | members).encode()


NO_REQUEST: dict[str, tuple[bytes, list[Answer]]] = {
    "not JSON": (b"nonsense", [(None, PARSE_ERROR)]),
    "a truncated request": (request()[:-1], [(None, PARSE_ERROR)]),
    "two values in one line": (request() + request(), [(None, PARSE_ERROR)]),
    "a byte order mark": (b"\xef\xbb\xbf" + request(), [(None, PARSE_ERROR)]),
    "UTF-16": (request().decode().encode("utf-16"), [(None, PARSE_ERROR)]),
    "a NUL alone": (b"\0", [(None, PARSE_ERROR)]),
    "a NUL in a string": (b'{"jsonrpc":"2.0","id":1,"method":"pi\0ng"}', [(None, PARSE_ERROR)]),
    "a number": (b"42", [(None, INVALID_REQUEST)]),
    "a string": (b'"ping"', [(None, INVALID_REQUEST)]),
    "null": (b"null", [(None, INVALID_REQUEST)]),
    "an empty object": (b"{}", [(None, INVALID_REQUEST)]),
    "an empty batch": (b"[]", [(None, INVALID_REQUEST)]),
    "a batch of nothing good": (b"[1,[]]", [(None, INVALID_REQUEST)] * 2),
    "blank lines": (b"\n \n\r\n\t", []),
    "a notification": (b'{"jsonrpc":"2.0","method":"notifications/whatever"}', []),
    "a batch of notifications": (b'[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]', []),
    "a response nobody waits for": (b'{"jsonrpc":"2.0","id":"warm","result":{}}', []),
    "an error nobody waits for": (b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', []),
    "a ping without id": (b'{"jsonrpc":"2.0","method":"ping"}', []),
    "a list without id": (b'{"jsonrpc":"2.0","method":"tools/list"}', []),
    "a cancel of nothing": (b'{"jsonrpc":"2.0","method":"notifications/cancelled"}', []),
    "a cancel of an answered id": (
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"warm"}}',
        [],
    ),
    "a cancel of a list": (b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[1]}}', []),
    "a cancel with a list": (b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[1]}', []),
}


@pytest.mark.parametrize("name", NO_REQUEST)
def test_what_is_not_a_request(peer: Peer, name: str) -> None:
    line, expected = NO_REQUEST[name]
    assert exchange(peer, line) == expected


ODD_REQUESTS: dict[str, tuple[bytes, list[Answer]]] = {
    "no jsonrpc member": (b'{"id":1,"method":"ping"}', [(1, 0)]),
    "an old jsonrpc member": (request(jsonrpc="1.0"), [(1, 0)]),
    "a carriage return": (request() + b"\r", [(1, 0)]),
    "spaces around": (b"  " + request() + b" \t", [(1, 0)]),
    "no method": (b'{"jsonrpc":"2.0","id":1}', [(1, INVALID_REQUEST)]),
    "method null": (request(None), [(1, INVALID_REQUEST)]),
    "method a number": (request(7), [(1, INVALID_REQUEST)]),
    "method a list": (request([]), [(1, INVALID_REQUEST)]),
    "method an object": (request({}), [(1, INVALID_REQUEST)]),
    "method unknown": (request("no/such"), [(1, METHOD_NOT_FOUND)]),
    "method empty": (request(""), [(1, METHOD_NOT_FOUND)]),
    "params null": (request(params=None), [(1, 0)]),
    "params a list": (request("tools/call", params=[]), [(1, INVALID_PARAMS)]),
    "params a number": (request("tools/call", params=3), [(1, INVALID_PARAMS)]),
    "params a string": (request("initialize", params="x"), [(1, INVALID_PARAMS)]),
    "id null": (request(id=None), [(None, INVALID_REQUEST)]),
    "id true": (request(id=True), [(None, INVALID_REQUEST)]),
    "id a list": (request(id=[1]), [(None, INVALID_REQUEST)]),
    "id an object": (request(id={}), [(None, INVALID_REQUEST)]),
    "id infinite": (b'{"jsonrpc":"2.0","id":Infinity,"method":"ping"}', [(None, INVALID_REQUEST)]),
    "id not a number": (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', [(None, INVALID_REQUEST)]),
    "id overflowing": (b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}', [(None, INVALID_REQUEST)]),
    "no tool": (request("tools/call", params={}), [(1, ANY)]),
    "tool a number": (request("tools/call", params={"name": 3}), [(1, ANY)]),
    "tool a list": (request("tools/call", params={"name": []}), [(1, ANY)]),
    "tool an object": (request("tools/call", params={"name": {"a": 1}}), [(1, ANY)]),
    "tool unknown": (call("no_such_tool", id=1), [(1, METHOD_NOT_FOUND)]),
    "arguments a list": (request("tools/call", params={"name": "mempalace_kg_query", "arguments": []}), [(1, ANY)]),
    "arguments a number": (request("tools/call", params={"name": "mempalace_kg_query", "arguments": 5}), [(1, ANY)]),
    "arguments null": (request("tools/call", params={"name": "mempalace_kg_stats", "arguments": None}), [(1, ANY)]),
    "an entity that is an object": (call("kg_query", id=1, entity={"a": []}), [(1, ANY)]),
    "a limit of 1e999": (call("search", id=1, query="x", limit=5).replace(b": 5", b": 1e999"), [(1, ANY)]),
    "a limit that is NaN": (call("search", id=1, query="x", limit=5).replace(b": 5", b": NaN"), [(1, ANY)]),
    "a number of 10,000 digits": (
        call("search", id=1, query="x", limit=5).replace(b": 5", b": " + b"9" * 10_000),
        [(1, INVALID_REQUEST)],
    ),
    "an id of 10,000 digits": (
        request().replace(b'"id": 1', b'"id": ' + b"9" * 10_000),
        [(None, INVALID_REQUEST)],
    ),
    "invalid UTF-8 in a string": (call("kg_query", id=1, entity="@").replace(b"@", b"a\xff\xfe\x80z"), [(1, 0)]),
    "a lone surrogate": (call("kg_query", id=1, entity="\ud800"), [(1, ANY)]),
    "a NUL escaped": (call("kg_query", id=1, entity="a\0b"), [(1, ANY)]),
    "one key twice": (b'{"jsonrpc":"2.0","id":2,"id":1,"method":"ping"}', [(1, 0)]),
    "a method of ours": (request("broker/no-such"), [(1, METHOD_NOT_FOUND)]),
    "an id as ours are": (request("tools/list", id="broker/hello"), [("broker/hello", 0)]),
}


def matches(found: list[Answer], expected: list[Answer]) -> bool:
    return len(found) == len(expected) and all(
        f[0] == e[0] and (e[1] == ANY or f[1] == e[1]) for f, e in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_odd_requests(peer: Peer, name: str) -> None:
    line, expected = ODD_REQUESTS[name]
    found = exchange(peer, line, count=len(expected))
    assert matches(found, expected), found


@pytest.mark.parametrize("depth", [900, 20_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting(peer: Peer, depth: int, opening: str, closing: str) -> None:
    nest = opening * depth + "1" + closing * depth
    line = call("kg_query", id="deep", entity="@").replace(b'"@"', nest.encode())
    found = exchange(peer, line, count=1)
    assert matches(found, [("deep", ANY)]), found
    if depth > 900:
        assert found == [("deep", INVALID_REQUEST)]


def test_ids_keep_value_and_type(peer: Peer) -> None:
    ids: list[Any] = [0, "", "0", 7, "7", -1, 1.5, HUGE, str(HUGE), "a\nb", "\u00e9\U0001f600", "null"]
    for method in ("ping", "tools/list", "initialize", "server/discover"):
        found = exchange(peer, *(request(method, id=id_) for id_ in ids), count=len(ids))
        assert [json.dumps(id_) for id_, _ in found] == [json.dumps(id_) for id_ in ids]
    found = exchange(peer, *(call("kg_stats", id=id_) for id_ in ids), count=len(ids))
    assert sorted(json.dumps(id_) for id_, code in found if code == 0) == sorted(json.dumps(id_) for id_ in ids)


def test_duplicate_ids_are_all_answered(peer: Peer) -> None:
    lines = [call("kg_stats", id=5), call("kg_query", id=5, entity="x"), request("tools/list", id=5), request(id=5)]
    assert exchange(peer, *lines, count=4) == [(5, 0)] * 4


def test_a_batch_is_answered_element_by_element(peer: Peer) -> None:
    good = json.loads(call("kg_stats", id="b"))
    batch = [json.loads(request()), 17, {"jsonrpc": "2.0", "method": "ping"}, good, {"id": 3, "method": 4}]
    found = exchange(peer, json.dumps(batch).encode(), count=4)
    assert sorted(found, key=str) == sorted([(1, 0), (None, INVALID_REQUEST), ("b", 0), (3, INVALID_REQUEST)], key=str)


def test_requests_without_id_are_not_answered_and_not_executed(peer: Peer, world: World) -> None:
    facts = {"subject": "noid", "predicate": "is", "object": "x"}
    line = json.loads(call("kg_add", id=0, **facts))
    del line["id"]
    assert exchange(peer, json.dumps(line).encode()) == []
    assert world.shim().call_tool("kg_query", entity="noid")["facts"] == []


def test_a_line_of_20_mb(peer: Peer) -> None:
    text = "x" * (20 << 20)
    assert matches(exchange(peer, call("kg_query", id=1, entity=text), count=1), [(1, ANY)])
    assert exchange(peer, text.encode(), count=1) == [(None, PARSE_ERROR)]


def test_a_line_of_more_than_64_mb_is_refused_once(peer: Peer) -> None:
    piece, before = b"x" * (1 << 20), len(peer.lines)
    for _ in range(70):
        peer.send_bytes(piece)
    peer.wait_lines(before + 1)  # the refusal comes before the end of the line
    assert strict(peer.lines[-1])["error"]["code"] == INVALID_REQUEST
    assert exchange(peer, piece) == []


def test_a_flood_of_notifications_hinders_nobody(peer: Peer, bystander: RpcProcess) -> None:
    flood = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n' * 50_000
    sender = threading.Thread(target=peer.send_bytes, args=(flood,))
    sender.start()
    for _ in range(5):
        bystander.call_tool("kg_stats", timeout=5)
    sender.join(30)
    assert not sender.is_alive()
    assert exchange(peer) == []


def test_5000_pipelined_pings_are_answered_in_order(peer: Peer) -> None:
    found = exchange(peer, *(request(id=number) for number in range(5000)), count=5000)
    assert found == [(number, 0) for number in range(5000)]


def test_a_request_byte_by_byte(peer: Peer) -> None:
    for byte in call("kg_stats", id="slow"):
        peer.send_bytes(bytes([byte]))
    assert exchange(peer, b"", count=1) == [("slow", 0)]  # sends the newline


@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut"])
def test_last_line_without_newline_is_answered_unless_it_was_cut(peer: Peer, cut: int) -> None:
    line = call("kg_stats", id=9)
    peer.send_bytes(request(id=8) + b"\n" + line[: len(line) - cut])
    peer.wait_lines(3)
    peer.close_stdin()
    if isinstance(peer, RpcProcess):
        assert peer.wait(10) == 0
    else:
        peer._reader.join(10)
    last = strict(peer.lines[3])
    assert [strict(text)["id"] for text in peer.lines[2:]] == [8, None if cut else 9]
    assert last.get("error", {}).get("code") == (PARSE_ERROR if cut else None)


def test_a_second_hello_is_refused_and_costs_nothing_but_its_own_connection(world: World) -> None:
    with world.shim() as shim:
        shim.initialize()
        assert "error" in shim.request("broker/hello", {"session": "a", "connection": 1}, id_="h", timeout=10)
        assert shim.call_tool("kg_stats", timeout=10)["triples"] == 0
