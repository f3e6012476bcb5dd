"""Options of a connection whose peer may have left."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from mempalace_broker.system.tcp_options import set_tcp_options


def test_they_are_set() -> None:
    with socket.socket(socket.AF_INET) as sock:
        set_tcp_options(cast(Any, sock))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("last", range(3))
def test_a_peer_that_left_is_noticed_by_the_next_read(last: int) -> None:
    class Left:
        calls = 0

        def setsockopt(self, *_: object) -> None:
            self.calls += 1
            if self.calls > last:
                raise OSError(22, "Invalid argument")

    set_tcp_options(cast(Any, Left()))
