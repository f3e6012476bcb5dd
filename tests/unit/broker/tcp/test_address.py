from __future__ import annotations

import sys

import pytest

from mempalace_broker.broker.tcp import address
from mempalace_broker.broker.tcp.address import Unavailable, find_address, interface_address

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def test_names_become_addresses() -> None:
    assert interface_address(LOOPBACK) == "127.0.0.1"
    assert interface_address("no-such0") is None
    assert find_address(LOOPBACK) == find_address("127.0.0.1") == "127.0.0.1"
    assert find_address("fd00::1") == "fd00::1"
    assert find_address("any") == "0.0.0.0"
    with pytest.raises(Unavailable, match="no interface no-such0"):
        find_address("no-such0")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is the loopback address")
def test_docker_is_the_first_bridge_that_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"podman0": "10.88.0.1"}
    monkeypatch.setattr(address, "interface_address", known.get)
    assert find_address("docker") == "10.88.0.1"
    known["docker0"] = "172.17.0.1"
    assert find_address("docker") == "172.17.0.1"
    known.clear()
    with pytest.raises(Unavailable, match="docker0, cni-podman0, podman0 has an address") as caught:
        find_address("docker")
    assert caught.value.hint
