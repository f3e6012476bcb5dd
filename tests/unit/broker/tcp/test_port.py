from __future__ import annotations

import socket

import pytest

from mempalace_broker.broker.tcp.address import Unavailable
from mempalace_broker.broker.tcp.port import bind_tcp, candidate_ports, endpoint_of, usual_port


def test_which_ports_are_tried() -> None:
    assert candidate_ports(4711, 21_500, "/a") == [4711]
    assert candidate_ports(0, 21_500, "/a") == [21_500, usual_port("/a"), 0]
    assert candidate_ports(0, 0, "/a") == [usual_port("/a"), 0]


def test_the_first_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        busy = taken.getsockname()[1]
        with bind_tcp("127.0.0.1", [busy, 0]) as sock:
            assert sock.getsockname()[1] not in (0, busy)
            assert endpoint_of(sock) == f"tcp://127.0.0.1:{sock.getsockname()[1]}"
            assert not sock.getblocking()
        with pytest.raises(Unavailable, match=f"127.0.0.1 port {busy}: Address already in use"):
            bind_tcp("127.0.0.1", [busy])


def test_an_address_of_another_machine() -> None:
    with pytest.raises(Unavailable, match=r"cannot listen on 192\.0\.2\.1"):
        bind_tcp("192.0.2.1", [0])


def test_the_sixth_version() -> None:
    try:
        with bind_tcp("::1", [0]) as sock:
            assert endpoint_of(sock) == f"tcp://[::1]:{sock.getsockname()[1]}"
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    except Unavailable as exc:
        pytest.skip(f"no IPv6 here: {exc}")


def test_the_usual_port() -> None:
    ports = {usual_port(f"/home/{name}/.mempalace") for name in range(300)}
    assert min(ports) >= 21_000
    assert max(ports) < 22_000
    assert len(ports) > 200
    assert usual_port("/a") == usual_port("/a")
