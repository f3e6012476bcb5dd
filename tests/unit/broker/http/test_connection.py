"""One connection over HTTP, whatever its client sends, and however slowly."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.broker.http import connection as http
from mempalace_broker.broker.http.machine.gate import Admitted, Head, Refusal
from mempalace_broker.broker.turns import SHARE_S
from tests.unit.broker.http.bench import BODY, Bench, on_a_loop, request

Test = Callable[[Bench], None]


def play(test: Test) -> Callable[[], None]:
    """A test that needs a loop, for timers."""

    def run() -> None:
        on_a_loop(lambda: test(Bench()))

    run.__name__ = test.__name__
    return run


@play
def test_requests_one_after_the_other(bench: Bench) -> None:
    bench.says(request())
    bench.says(request(b'{"id":2}'))
    assert bench.answers() == [(200, BODY), (200, b'{"id":2}')]
    assert not bench.transport.closed


@play
def test_a_client_that_closes_behind_its_request(bench: Bench) -> None:
    bench.says(request(BODY, "Connection: close"))
    assert bench.answers() == [(200, BODY)]
    assert bench.transport.closed


@play
def test_an_old_client(bench: Bench) -> None:
    bench.says(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert bench.answers() == [(200, BODY)]
    assert bench.transport.closed


@play
def test_whoever_asks_for_the_head_gets_no_body(bench: Bench) -> None:
    bench.says(request(b"", method="HEAD"))
    assert bench.transport.sent.startswith(b"HTTP/1.1 405 ")
    assert bench.transport.sent.endswith(b"\r\n\r\n")
    del bench.transport.sent[:]
    bench.says(request(), b"\0")
    assert [status for status, _ in bench.answers()] == [200, 400]


def test_pipelined_requests_wait_for_their_turn() -> None:
    async def main() -> None:
        bench = Bench()
        bench.endpoint.waits = True
        bench.says(request(b"[1]") + request(b"[2]"))
        assert [body for _, _, body in bench.endpoint.asked] == [b"[1]"]
        assert bench.transport.asked_to_pause == 1
        bench.endpoint.waits = False
        bench.connection.reply = None
        bench.connection.respond(200, b"one")
        await asyncio.sleep(0)
        assert bench.answers() == [(200, b"one"), (200, b"[2]")]

    asyncio.run(main())


@play
def test_without_the_token_the_body_is_not_kept(bench: Bench) -> None:
    head, _, body = request(bytes(http.SHORT + 1), token="00" * 32).partition(b"\r\n\r\n")
    bench.says(head + b"\r\n\r\n")
    assert [status for status, _ in bench.answers()] == [401]
    bench.says(body * 1000)
    assert bench.connection.held == 0
    assert bench.transport.half  # so that the client can read our answer, before it is cut off
    assert not bench.transport.closed
    assert not bench.endpoint.asked
    assert bench.connection.overdue(bench.connection.deadline)


@play
def test_a_short_body_is_read_past_so_that_the_client_may_try_again(bench: Bench) -> None:
    head, _, body = request(token="00" * 32).partition(b"\r\n\r\n")
    bench.says(head + b"\r\n\r\n")
    assert bench.answers() == []
    bench.says(body, request())
    assert [status for status, _ in bench.answers()] == [401, 200]
    assert bench.connection.held == 0


@play
def test_a_refusal_behind_a_whole_request_keeps_the_connection(bench: Bench) -> None:
    bench.says(request(b"", method="PUT"), request())
    assert [status for status, _ in bench.answers()] == [405, 200]
    assert bench.listener.refusals == [405]


@pytest.mark.parametrize("length", [http.MAX_BODY + 1, 10**30])
def test_a_body_that_is_too_long_is_refused_unread(length: int) -> None:
    @play
    def run(bench: Bench) -> None:
        head = request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % length)
        bench.says(head)
        assert [status for status, _ in bench.answers()] in ([413], [400])
        assert bench.transport.half or bench.transport.closed

    run()


@play
def test_a_chunked_body_is_counted(bench: Bench) -> None:
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    bench.says(head + b"3\r\n[1]\r\n0\r\n\r\n")
    assert bench.answers() == [(200, b"[1]")]
    bench.listener.overfull = True
    bench.says(head + b"%x\r\n" % (http.LARGE + 1) + bytes(http.LARGE + 1))
    assert [status for status, _ in bench.answers()] == [200, 413]


@play
def test_a_client_that_asks_before_it_sends_its_body(bench: Bench) -> None:
    head, _, body = request(BODY, "Expect: 100-continue").partition(b"\r\n\r\n")
    bench.says(head + b"\r\n\r\n")
    assert bench.answers() == [(100, b"")]
    bench.says(body)
    assert bench.answers() == [(100, b""), (200, BODY)]


@pytest.mark.parametrize(
    "bad",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        request().replace(b"Host: 127.0.0.1\r\n", b""),
        request().replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length"),
        request(BODY, "Content-Length: 3"),
        request(BODY, "X: " + "a" * http.MAX_HEAD)[: http.MAX_HEAD + 1],
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    ],
)
def test_what_is_not_http(bad: bytes) -> None:
    @play
    def run(bench: Bench) -> None:
        bench.says(bad)
        assert not bench.endpoint.asked or bench.transport.half or bench.transport.closed
        statuses = [status for status, _ in bench.answers()]
        assert all(status >= 400 for status in statuses)
        assert bench.transport.half or bench.transport.closed

    run()


@play
def test_whoever_is_slow_with_a_head_or_a_body_is_dropped(bench: Bench) -> None:
    began = asyncio.get_running_loop().time()
    bench.says(b"POST /mcp HT")
    assert not bench.connection.overdue(began + http.HEAD_S - 1)
    assert bench.connection.overdue(began + http.HEAD_S + 1)
    bench.says(request()[12:-3])
    assert bench.connection.overdue(began + http.BODY_S + 1)
    bench.endpoint.waits = True
    bench.says(request()[-3:])
    assert not bench.connection.overdue(began + 1e6)  # now it is our turn


@play
def test_whoever_reads_nothing_is_dropped_and_whoever_reads_slowly_is_not(bench: Bench) -> None:
    bench.says(request())
    bench.transport.unread = 5 << 20
    bench.connection.pause_writing()
    assert not bench.connection.overdue(bench.connection.deadline - 1)
    bench.transport.unread = 4 << 20
    assert not bench.connection.overdue(bench.connection.deadline)
    assert bench.connection.overdue(bench.connection.deadline)


@play
def test_unread_answers_of_all_are_added_up_from_a_large_one_on(bench: Bench) -> None:
    bench.says(request())
    assert bench.listener.limited == 0
    bench.transport.unread = http.LARGE + 1
    bench.says(request())
    assert bench.listener.limited == 1


@play
def test_beats_of_a_stream_are_not_taken_for_reading(bench: Bench) -> None:
    bench.transport.unread = 4 << 20
    bench.connection.pause_writing()
    bench.transport.unread += 20
    assert bench.connection.overdue(bench.connection.deadline)


def test_whoever_does_not_read_its_answers_is_asked_for_no_more_requests() -> None:
    async def run() -> None:
        bench = Bench()
        write = bench.transport.write

        def fill(data: bytes) -> None:
            write(data)
            bench.connection.pause_writing()

        bench.transport.write = fill  # type: ignore[method-assign]
        bench.says(request(b"[1]") + request(b"[2]"), request(b"[3]"))
        told = [[body for _, _, body in bench.endpoint.asked]]
        assert bench.transport.paused
        while len(told) < 3:
            bench.connection.resume_writing()
            await asyncio.sleep(0)
            told.append([body for _, _, body in bench.endpoint.asked])
        assert told == [[b"[1]"], [b"[1]", b"[2]"], [b"[1]", b"[2]", b"[3]"]]
        bench.connection.resume_writing()
        assert not bench.transport.paused

    asyncio.run(run())


@play
def test_a_stream_of_events(bench: Bench) -> None:
    bench.endpoint.waits = True
    bench.says(request())
    bench.connection.begin_stream("e", prime=True)
    bench.connection.end_stream([b"{}", b"[]"], "e.1")
    (answer,) = bench.answers()
    assert answer[1] == b"id: e\ndata: \n\nevent: message\ndata: {}\n\nid: e.1\nevent: message\ndata: []\n\n"
    bench.endpoint.waits = False
    bench.says(request())
    assert bench.answers()[1] == (200, BODY)


@play
def test_whoever_hangs_up_on_a_stream_has_gone(bench: Bench) -> None:
    bench.endpoint.waits = True
    bench.says(request())
    assert bench.connection.eof_received()  # it may still read a plain answer
    bench.connection.begin_stream("", prime=True)
    assert not bench.connection.eof_received()
    bench.connection.connection_lost(None)
    assert bench.endpoint.lost_ == 1
    assert not bench.listener.there


@play
def test_a_connection_at_rest_can_be_given_away(bench: Bench) -> None:
    told = [bench.connection.at_rest]
    for part in (request()[:-1], request()[-1:]):
        bench.says(part)
        told.append(bench.connection.at_rest)
    assert told == [True, False, True]
    bench.transport.unread = 1
    assert not bench.connection.at_rest, "the rest of an answer is not sent yet"
    bench.transport.unread = 0
    assert str(bench.connection.release()) == "a copy"
    assert bench.transport.aborted
    bench.connection.connection_lost(None)
    assert not bench.connection.at_rest, "it is another's"


PIECES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [request(), request(b"", method="GET"), request(token="x"), request(host="evil"), b"\r\n", b"0\r\n"]
    ),
    st.sampled_from([request(BODY, "Expect: 100-continue"), request(BODY, "Transfer-Encoding: chunked")]),
)


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_whatever_comes_however_it_is_cut(pieces: list[bytes], chance: object, ends: bool) -> None:
    @play
    def run(bench: Bench) -> None:
        stream = b"".join(pieces)
        cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(4))  # type: ignore[attr-defined]
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if start < end and not bench.transport.closed:
                bench.says(stream[start:end])
        if ends and not bench.transport.closed:
            bench.connection.eof_received()
        assert all(status in range(100, 600) for status, _ in bench.answers())
        bench.connection.connection_lost(None)
        assert not bench.listener.there

    run()


def test_what_a_flood_sends_is_read_in_many_turns_of_the_loop() -> None:
    async def main() -> None:
        bench = Bench()

        def takes_long(head: Head) -> Admitted | Refusal:
            bench.listener.now += SHARE_S
            return judge(head)

        judge, bench.listener.judge = bench.listener.judge, takes_long  # type: ignore[method-assign]
        bench.says(request(b"[1]") + request(b"[2]") + request(b"[3]"))
        assert bench.answers() == []
        assert bench.transport.asked_to_pause == 1, "the kernel keeps what more it sends"
        for answered in range(1, 4):
            await asyncio.sleep(0)
            assert len(bench.answers()) == answered
        await asyncio.sleep(0)
        assert not bench.transport.paused
        bench.says(request(b"[4]"), b"")
        assert bench.connection.eof_received(), "it still gets its answer"
        await asyncio.sleep(0)
        assert [body for _, body in bench.answers()] == [b"[1]", b"[2]", b"[3]", b"[4]"]
        assert bench.transport.closed

    asyncio.run(main())


def test_what_is_left_to_read_is_dropped_with_its_connection() -> None:
    async def main() -> None:
        bench = Bench()
        bench.listener.now = 1.0
        bench.listener.turns.add(lambda: setattr(bench.listener, "now", 2.0) or False)  # type: ignore[func-returns-value]
        bench.says(request())
        bench.connection.connection_lost(None)
        await asyncio.sleep(0)
        assert bench.endpoint.asked == []

    asyncio.run(main())


@play
def test_a_body_of_tiny_chunks_takes_no_more_memory_than_a_whole_one(bench: Bench) -> None:
    head = request(b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    bench.says(head)
    tracemalloc.start()
    try:
        for _ in range(100):
            bench.says(b"2\r\n[]\r\n" * 1000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bench.connection.held == 200_000
    assert kept < 2 * bench.connection.held
    bench.says(b"0\r\n\r\n")
    assert bench.answers() == [(200, b"[]" * 100_000)]
