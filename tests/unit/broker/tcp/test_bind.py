from __future__ import annotations

import socket
import sys

import pytest

from mempalace_broker.broker.tcp import bind as tcpbind
from mempalace_broker.broker.tcp.bind import (
    NotThere,
    bind_tcp,
    endpoint_of,
    find_address,
    interface_address,
    usual_port,
)

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def test_names_become_addresses() -> None:
    assert interface_address(LOOPBACK) == "127.0.0.1"
    assert interface_address("no-such0") is None
    assert find_address(LOOPBACK) == find_address("127.0.0.1") == "127.0.0.1"
    assert find_address("fd00::1") == "fd00::1"
    assert find_address("any") == "0.0.0.0"
    with pytest.raises(NotThere, match="no interface no-such0"):
        find_address("no-such0")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is the loopback address")
def test_docker_is_the_first_bridge_that_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"podman0": "10.88.0.1"}
    monkeypatch.setattr(tcpbind, "interface_address", known.get)
    assert find_address("docker") == "10.88.0.1"
    known["docker0"] = "172.17.0.1"
    assert find_address("docker") == "172.17.0.1"
    known.clear()
    with pytest.raises(NotThere, match="docker0, cni-podman0, podman0 has an address") as caught:
        find_address("docker")
    assert caught.value.hint


def test_the_first_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        busy = taken.getsockname()[1]
        with bind_tcp("127.0.0.1", [busy, 0]) as sock:
            assert sock.getsockname()[1] not in (0, busy)
            assert endpoint_of(sock) == f"tcp://127.0.0.1:{sock.getsockname()[1]}"
            assert not sock.getblocking()
        with pytest.raises(NotThere, match=f"127.0.0.1 port {busy}: Address already in use"):
            bind_tcp("127.0.0.1", [busy])


def test_an_address_of_another_machine() -> None:
    with pytest.raises(NotThere, match=r"cannot listen on 192\.0\.2\.1"):
        bind_tcp("192.0.2.1", [0])


def test_the_sixth_version() -> None:
    try:
        with bind_tcp("::1", [0]) as sock:
            assert endpoint_of(sock) == f"tcp://[::1]:{sock.getsockname()[1]}"
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    except NotThere as exc:
        pytest.skip(f"no IPv6 here: {exc}")


def test_the_usual_port() -> None:
    ports = {usual_port(f"/home/{name}/.mempalace") for name in range(300)}
    assert min(ports) >= 21_000
    assert max(ports) < 22_000
    assert len(ports) > 200
    assert usual_port("/a") == usual_port("/a")
