"""The addresses of the setting `tcp`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import UsageError
from mempalace_broker.settings import check_tcp


@pytest.mark.parametrize("name", ["docker", "any", "127.0.0.1", "172.17.0.1", "::1", "docker0", "br-1a2b3c", "eth0.7"])
def test_names_of_one_address(name: str) -> None:
    assert check_tcp(f" {name} ", "tcp") == name


def test_forms_of_one_address() -> None:
    assert check_tcp("[fd00:0::1]", "tcp") == "fd00::1"
    assert check_tcp("", "tcp") == ""


@pytest.mark.parametrize("name", ["0.0.0.0", "::", "[::]", "*", "::ffff:0.0.0.0", "0:0:0:0:0:0:0:0"])
def test_every_address_only_by_that_word(name: str) -> None:
    with pytest.raises(UsageError, match="would listen on every address") as caught:
        check_tcp(name, "tcp")
    assert "any" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["0", "0.0", "000.0.0.0", "0x0", "256.1.1.1", "a b", "a/b", "x" * 16, "224.0.0.1", "-e", "\0"]
)
def test_neither_an_address_nor_an_interface(name: str) -> None:
    with pytest.raises(UsageError):
        check_tcp(name, "tcp")


@given(st.text(max_size=20))
def test_nothing_else_leads_to_the_wildcard(name: str) -> None:
    from mempalace_broker.broker.tcp.address import Unavailable, find_address

    try:
        checked = check_tcp(name, "tcp")
        address = find_address(checked) if checked else "off"
    except (UsageError, Unavailable):
        return
    assert checked == "any" or address not in ("0.0.0.0", "::")
