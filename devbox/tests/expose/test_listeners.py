"""Listening follows the addresses of the container."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from pi_devbox.errors import DevboxError
from pi_devbox.expose import listeners as module
from pi_devbox.expose.listeners import Listeners, is_here
from tests.proctools import free_port


class Container:
    """Addresses that come and go; loopback has many."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.said: list[str] = []

    def choose(self) -> list[str]:
        if not self.addresses:
            raise DevboxError("this container has no address.")
        return self.addresses


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Container:
    made = Container("127.0.0.2")
    monkeypatch.setattr(module, "is_here", lambda address: address in made.addresses)
    return made


@contextlib.contextmanager
def listening(container: Container) -> Iterator[Listeners]:
    made = Listeners(container.choose, free_port(), 8765, container.said.append)
    try:
        yield made
    finally:
        made.close()


def test_an_address_that_changes(container: Container) -> None:
    with listening(container) as made:
        port = made.sockets["127.0.0.2"].getsockname()[1]
        assert not made.follow()
        container.addresses = ["127.0.0.3"]
        assert made.follow()
        assert [sock.getsockname() for sock in made.sockets.values()] == [("127.0.0.3", port)]
        assert not made.follow()
    assert container.said == [
        f"relaying 127.0.0.2:{port} -> 127.0.0.1:8765 [Ctrl-C to stop]",
        "127.0.0.2 is no longer an address of this container.",
        f"relaying 127.0.0.3:{port} -> 127.0.0.1:8765 [Ctrl-C to stop]",
    ]


def test_another_address_beside_it_changes_nothing(container: Container) -> None:
    with listening(container) as made:
        container.addresses = ["127.0.0.3", "127.0.0.2"]
        assert not made.follow()
        assert list(made.sockets) == ["127.0.0.2"]


def test_no_address_for_a_while(container: Container) -> None:
    with listening(container) as made:
        container.addresses = []
        assert [made.follow() for _ in range(3)] == [True, False, False]
        assert not made.sockets
        container.addresses = ["127.0.0.2"]
        assert [made.follow() for _ in range(2)] == [True, False]
    assert [line for line in container.said if "relaying" not in line] == [
        "127.0.0.2 is no longer an address of this container.",
        "this container has no address. Waiting until that changes.",
    ]


def test_the_new_address_has_the_port_taken(container: Container) -> None:
    with listening(container) as made:
        port = made.sockets["127.0.0.2"].getsockname()[1]
        container.addresses = ["127.0.0.3"]
        with socket.create_server(("127.0.0.3", port)):
            assert made.follow()
            assert not made.follow()
            assert f"127.0.0.3:{port} is taken" in container.said[-1]
        assert made.follow()


def test_which_addresses_are_here() -> None:
    assert is_here("127.0.0.1")
    assert not is_here("203.0.113.7")
    assert not is_here("2001:db8::1")
