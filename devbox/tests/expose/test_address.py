"""The addresses that studio-expose listens on: those asked for, and no others."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.errors import DevboxError
from pi_devbox.expose.address import choose, interfaces, outward_address

DOCKER = {"lo": ["127.0.0.1", "::1"], "eth0": ["172.17.0.2", "fe80::42:acff:fe11:2"]}
TWO = {**DOCKER, "eth1": ["fd00::3", "10.9.0.3"]}


@pytest.mark.parametrize(
    ("wanted", "outward", "there", "chosen"),
    [
        ("", "172.17.0.2", {}, ["172.17.0.2"]),
        ("", "", DOCKER, ["172.17.0.2"]),
        ("any", "172.17.0.2", TWO, ["172.17.0.2", "fd00::3", "10.9.0.3"]),
        ("eth1", "172.17.0.2", TWO, ["10.9.0.3"]),
        ("10.9.0.3", "172.17.0.2", TWO, ["10.9.0.3"]),
        ("fd00::3", "", TWO, ["fd00::3"]),
    ],
)
def test_chosen(wanted: str, outward: str, there: dict[str, list[str]], chosen: list[str]) -> None:
    assert choose(wanted, outward, there) == chosen


@pytest.mark.parametrize(
    ("wanted", "outward", "there", "message"),
    [
        ("", "127.0.0.1", {}, "127.0.0.1 is loopback"),
        ("127.0.0.2", "", DOCKER, "127.0.0.2 is loopback"),
        ("::1", "", DOCKER, "::1 is loopback"),
        ("0.0.0.0", "", DOCKER, "0.0.0.0 means every address .* --bind any"),
        ("::", "", DOCKER, ":: means every address"),
        ("", "", {"lo": ["127.0.0.1"]}, "no address but loopback"),
        ("any", "", {"lo": ["127.0.0.1"]}, "no address but loopback"),
        ("", "", TWO, "no default route, and several addresses: 172.17.0.2, fd00::3, 10.9.0.3"),
        ("lo", "", DOCKER, "interface lo has no address"),
        ("eth7", "", DOCKER, "eth7 is neither an address nor an interface .*: 172.17.0.2"),
        ("172.17.0", "", DOCKER, "172.17.0 is neither"),
    ],
)
def test_refused(wanted: str, outward: str, there: dict[str, list[str]], message: str) -> None:
    with pytest.raises(DevboxError, match=message) as error:
        choose(wanted, outward, there)
    assert error.value.hint


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
special = st.sampled_from(["127.0.0.1", "0.0.0.0", "::", "::1", "127.9.9.9", "172.17.0.2"])
names = st.sampled_from(["lo", "eth0", "eth1", "any"])


@given(
    wanted=st.one_of(st.just(""), names, addresses, special, st.text(max_size=9)),
    outward=st.one_of(st.just(""), addresses, special),
    there=st.dictionaries(names, st.lists(st.one_of(addresses, special), max_size=3)),
)
def test_never_a_wildcard_nor_loopback(wanted: str, outward: str, there: dict[str, list[str]]) -> None:
    try:
        chosen = choose(wanted, outward, there)
    except DevboxError:
        return
    assert chosen
    for address in map(ipaddress.ip_address, chosen):
        assert not address.is_loopback
        assert not address.is_unspecified


def test_this_machine() -> None:
    there = interfaces()
    assert "127.0.0.1" in [address for found in there.values() for address in found]
    outward = outward_address()
    assert not outward or outward in [address for found in there.values() for address in found]
