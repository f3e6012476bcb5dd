"""What a bridge answers, however it arrives."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.route.bridge.wire import MAX_ANSWER, Answer

_PIECE = 4096  # of one read


@given(st.lists(st.binary(min_size=1, max_size=2000) | st.sampled_from([b"{", b'{"fd": 1}\n', b"\n"]), max_size=50))
def test_any_bytes_in_any_pieces(pieces: list[bytes]) -> None:
    here, there = socket.socketpair()
    with here, there:
        answer, held = Answer(), 0
        for piece in pieces:
            there.sendall(piece)
            answer.receive(here)
            held += len(piece)
            assert held <= MAX_ANSWER + _PIECE
            if answer.complete or answer.ended:
                break
        assert isinstance(answer.fields(), dict)
        assert answer.fds == []
        assert not (answer.complete and answer.ended)


def test_who_leaves_in_the_middle_has_not_answered() -> None:
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(b'{"mode": "forward"')
        answer = Answer()
        ends = []
        for _ in range(2):
            answer.receive(here)
            ends.append((answer.complete, answer.ended))
        assert ends == [(False, False), (False, True)]
