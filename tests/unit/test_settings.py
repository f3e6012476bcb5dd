"""Settings: tables [broker] and [container] of broker.toml, variables over them, and the addresses of `tcp`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import UsageError
from mempalace_broker.settings import DirectMode, SettingsFile, check_tcp

TOML = b"""
[broker]
idle_s = 5
[container]
ssh_host = "me@mac"
direct = "never"
[container.paths]
"/workspace/" = "/Users/me/work"
"/" = "/srv/"
"""


def test_the_table_and_its_paths() -> None:
    settings = SettingsFile.parse(TOML).container({})
    assert settings.ssh_host == "me@mac"
    assert settings.ssh_command == "mempalace-broker"
    assert settings.sources["direct"] == "broker.toml"
    assert settings.paths == {"/workspace": "/Users/me/work", "/": "/srv"}


def test_a_variable_wins_and_says_so() -> None:
    settings = SettingsFile.parse(TOML).container({"MEMPALACE_BROKER_DIRECT": "always"})
    assert settings.direct is DirectMode.ALWAYS
    assert "MEMPALACE_BROKER_DIRECT" in settings.sources["direct"]


def test_the_broker_does_not_mind_the_table() -> None:
    assert SettingsFile.parse(TOML).broker({}).idle_s == 5


def test_without_a_file_all_is_default() -> None:
    settings = SettingsFile.read("/nowhere/broker.toml").container({})
    assert set(settings.sources.values()) == {"default"}
    assert settings.paths == {}


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[container]\nssh_hots = 'x'", "ssh_hots"),
        ("[container]\ndirect = 'perhaps'", "perhaps"),
        ("[container]\ndirect = true", "text"),
        ("container = 7", "must be a table"),
        ("[container]\npaths = 'x'", "absolute folders"),
        ("[container.paths]\nwork = '/x'", "absolute folders"),
        ("[container.paths]\n'/work' = 'x'", "absolute folders"),
        ("[container", "not valid TOML"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_file(toml: str, word: str) -> None:
    with pytest.raises(UsageError) as error:
        SettingsFile.parse(toml.encode(), "/r/broker.toml").container({})
    assert word in error.value.message
    assert "/r/broker.toml" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("content", "word"), [(b"[broker]\nengine = '\xff'", "is not UTF-8"), (b"#" * 1_100_000, "has more than")]
)
def test_a_file_that_is_not_a_settings_file_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "broker.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=word):
        SettingsFile.read(str(path))


def test_a_directory_of_that_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        SettingsFile.read(str(tmp_path))


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
    from mempalace_broker.broker.tcp.bind import NotThere, find_address

    try:
        checked = check_tcp(name, "tcp")
        address = find_address(checked) if checked else "off"
    except (UsageError, NotThere):
        return
    assert checked == "any" or address not in ("0.0.0.0", "::")


def test_the_listener_is_set_in_the_file_or_by_variables() -> None:
    settings = SettingsFile.parse(b'[broker]\ntcp = "docker"\ntcp_port = 7777\n').broker({})
    assert (settings.tcp, settings.tcp_port) == ("docker", 7777)
    assert SettingsFile().broker({"MEMPALACE_BROKER_TCP": "any"}).tcp == "any"
    with pytest.raises(UsageError, match=r"MEMPALACE_BROKER_TCP: .* would listen"):
        SettingsFile().broker({"MEMPALACE_BROKER_TCP": "0.0.0.0"})
    with pytest.raises(UsageError, match="above 65535"):
        SettingsFile.parse(b"[broker]\ntcp_port = 65536\n").broker({})
