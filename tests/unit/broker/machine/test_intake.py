"""What clients send is taken in small pieces, and bounded."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine.intake import MAX_BATCH, MAX_BATCH_BYTES, SHARE, has_more, next_piece
from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.session import Session
from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.protocol.framing import LONG, TooLong
from mempalace_broker.protocol.long_line import SLICE
from tests.unit.broker.machine.dialogue import ADD, SEARCH, WAIT, Talk, call, request


def test_a_batch_takes_several_turns_and_the_lines_behind_it_wait() -> None:
    talk = Talk()
    talk.opens(1)
    batch = json.dumps([request(n, "ping") for n in range(SHARE + 10)]).encode()
    lines: deque[bytes | TooLong] = deque([batch, json.dumps(request("last", "ping")).encode()])
    assert talk.protocol.work(1, lines, talk.now)
    assert talk.protocol.take()
    assert len(lines) == 1
    assert not talk.protocol.work(1, lines, talk.now)
    talk.turn()
    assert talk.heard(1)[-1]["id"] == "last"


@pytest.mark.parametrize(("method", "most"), [("ping", SHARE), ("broker/status", 4), ("tools/list", 8)])
def test_dear_requests_use_up_a_share_sooner(method: str, most: int) -> None:
    talk = Talk()
    talk.opens(1)
    lines: deque[bytes | TooLong] = deque(json.dumps(request(n, method)).encode() for n in range(200))
    talk.protocol.work(1, lines, talk.now)
    assert 200 - len(lines) <= most


@pytest.mark.parametrize("text", ["x", "\n", "é", "[]", '"'])
def test_a_long_line_takes_a_turn_for_each_slice(text: str) -> None:
    talk = Talk()
    talk.opens(1)
    line = json.dumps(call(1, SEARCH, query=text * (1 << 20))).encode()
    lines: deque[bytes | TooLong] = deque([line, b'{"id":2,"method":"ping"}'])
    turns = 1
    while talk.protocol.work(1, lines, talk.now):
        turns += 1
        assert turns < 2 * len(line) // SLICE
    assert turns >= len(line) // SLICE
    talk.turn()
    assert talk.inside[0].payload == line
    assert talk.heard(1)[-1]["id"] == 2


def test_a_batch_of_long_texts_is_passed_on_whole() -> None:
    talk = Talk()
    talk.opens(1)
    batch = [call(n, SEARCH, query="x" * LONG) for n in (1, 2)]
    talk.says(1, batch)
    assert [json.loads(frame.payload) for frame in talk.inside] == batch[:1]
    talk.done(talk.inside[0])
    assert [json.loads(frame.payload) for frame in talk.inside] == batch[1:]


def test_a_client_that_left_in_the_middle_of_a_batch_costs_nothing_more() -> None:
    talk = Talk()
    talk.opens(1)
    lines: deque[bytes | TooLong] = deque([json.dumps([request(n, "ping") for n in range(500)]).encode(), b"x"])
    talk.protocol.work(1, lines, talk.now)
    talk.gone(1)
    assert not talk.protocol.work(1, lines, talk.now)
    assert not lines


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (TooLong(10), "a line of more than 10 bytes"),
        (b"[" + b"1," * MAX_BATCH + b"1]", f"a batch of more than {MAX_BATCH} elements"),
        (b'["' + b"x" * MAX_BATCH_BYTES + b'"]', f"a batch of more than {MAX_BATCH_BYTES} bytes"),
        (b'[{"id":1,"method":"m","params":{"a":' + b"[" * 900 + b"]" * 900 + b"}}]", ""),
    ],
)
def test_what_is_beyond_the_bounds_is_one_error(line: bytes | TooLong, text: str) -> None:
    session = Session(1, 0.0, 0, "raw")
    lines: deque[bytes | TooLong] = deque([line])
    while (piece := next_piece(session, lines)) and piece.message.kind == rpc.BLANK:
        pass
    assert piece is not None
    if text:
        assert (piece.message.kind, piece.message.code) == (rpc.BAD, errors.INVALID_REQUEST)
        assert text in piece.message.text
    assert session.ordinal == 1
    while has_more(session, deque()):
        next_piece(session, deque())


MB = 1 << 20


def waiting(id_: object, size: int) -> dict[str, Any]:
    return call(id_, WAIT, timeout_ms=1000, pad="x" * size)


def test_the_calls_of_one_session_hold_a_bounded_number_of_bytes() -> None:
    talk = Talk(limits=Limits(session_bytes=MB))
    talk.opens(1, 2)
    talk.says(1, waiting(1, 3 * MB))  # a single one may be as large as a line
    talk.says(1, waiting(2, 10))
    assert talk.code(1) == errors.OVERLOADED
    talk.says(2, waiting(3, MB // 2))
    assert talk.ids() == [1, 3]
    talk.done(talk.frame(1))
    talk.says(1, waiting(4, 10))
    assert talk.ids() == [3, 4]


def test_all_calls_together_too_and_everyone_has_a_little() -> None:
    talk = Talk(limits=Limits(all_bytes=3 * MB, spare_bytes=1000))
    talk.opens(1, 2)
    talk.says(1, waiting(1, 2 * MB))
    talk.says(2, waiting(2, 2 * MB), waiting(3, 500))
    assert talk.code(2) == errors.OVERLOADED
    assert talk.ids() == [1, 3]


def test_a_client_that_left_holds_nothing_but_what_runs() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, ADD, content="x" * MB), call(2, ADD, content="y" * MB))
    scheduler = talk.dispatcher.scheduler
    assert scheduler.held > 2 * MB
    talk.gone(1)
    assert MB < scheduler.held < 2 * MB
    assert [call.raw for call in scheduler.running.values()] == [b""]
    talk.done(talk.inside[0], b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert scheduler.held == 0


def test_what_an_engine_left_behind_counts_until_it_ran() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, SEARCH, query="x" * 1000))
    held = talk.dispatcher.scheduler.held
    talk.dies()
    assert talk.dispatcher.scheduler.held == held
    talk.recovers()
    talk.done(talk.inside[0])
    assert talk.dispatcher.scheduler.held == 0


def test_a_call_that_fits_no_frame_is_its_senders_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mempalace_broker.protocol.engine_frames.MAX_PAYLOAD", 1000)
    talk = Talk()
    talk.opens(1, 2)
    talk.says(1, call(1, ADD, content="x" * 2000))
    error = talk.answer(1)["error"]
    assert error["code"] == errors.INVALID_REQUEST
    assert "too long" in error["message"]
    talk.says(2, call(2, ADD, content="x"))
    assert talk.ids() == [2]
