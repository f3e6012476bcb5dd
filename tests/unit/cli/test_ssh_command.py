"""What a restricted key may run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker import errors
from mempalace_broker.cli import main
from mempalace_broker.cli.context_options import pinned_context
from mempalace_broker.cli.ssh_command import ALLOWED, VARIABLE, Refused, allowed
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import DiscoveryRecord, encode

OWN = {"--state-root": "/srv/m", "--palace": "/srv/m/palace"}


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ("mempalace-broker ensure", "ensure"),
        ("mempalace-broker ensure --json", "ensure"),
        ("~/.local/bin/mempalace-broker dial-stdio", "dial-stdio"),
        ("/opt/x/mempalace-broker ensure --state-root /srv/m/", "ensure"),
        ("mempalace-broker dial-stdio --state-root='/srv/m'", "dial-stdio"),
        ("mempalace-broker ensure --palace /srv/m/palace --state-root /srv/m", "ensure"),
    ],
)
def test_our_two_commands_for_the_palace_of_the_key(asked: str, command: str) -> None:
    assert allowed(asked, OWN) == command


@pytest.mark.parametrize("option", ["--state-root /other", "--palace /other", "--state-root ~/m", "--palace=/srv/m"])
def test_another_palace_is_refused(option: str) -> None:
    with pytest.raises(Refused, match=option.replace("=", " ").split()[0]):
        allowed(f"mempalace-broker ensure {option}", OWN)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "id",
        "mempalace-broker",
        "mempalace-broker stop",
        "mempalace-broker ensure; id",
        "mempalace-broker ensure && id",
        "mempalace-broker ensure $(id)",
        "mempalace-broker ensure --tcp any",
        "mempalace-broker ensure --state-root",
        "mempalace-broker ensure --state-root relative",
        "mempalace-broker ensure --state-root /a/../b",
        "mempalace-broker ensure --state-root /a --state-root /b",
        "mempalace-broker ensure --backend x",
        "mempalace-broker ensure 'unbalanced",
        "mempalace-broker run",
        "mempalace-broker-evil ensure",
        "sh -c 'mempalace-broker ensure'",
        "mempalace-broker --help ensure",
    ],
)
def test_all_else_is_refused(asked: str) -> None:
    with pytest.raises(Refused):
        allowed(asked, OWN)


@given(st.text())
def test_whatever_is_asked_only_known_words_come_out(asked: str) -> None:
    try:
        command = allowed(asked, OWN)
    except Refused:
        return
    assert command in ALLOWED


def test_the_record_of_a_shared_folder_chooses_no_palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the state root mounted writes the record, and with it the name of any palace of the user."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "shared"
    root.mkdir()
    secret = PalaceIdentity(str(tmp_path / "secret"), str(tmp_path / "secret/g"), "flag")
    record = DiscoveryRecord(record="0" * 32, pid=1, endpoints=["unix:/x"], palace=secret.as_json())
    (root / "broker.json").write_bytes(encode(record))
    context = pinned_context(str(root), None)
    assert context.identity.path == os.path.realpath(root / "palace")
    assert context.files.root == os.path.realpath(root)


def test_a_pinned_palace_keeps_its_own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    context = pinned_context(None, str(tmp_path / "m" / "palace"))
    assert context.identity.path == os.path.realpath(tmp_path / "m" / "palace")
    assert context.files.root == os.path.realpath(tmp_path / "m")
    both = pinned_context(str(tmp_path / "r"), str(tmp_path / "m" / "palace"))
    assert both.identity.path == context.identity.path
    assert both.files.root == os.path.realpath(tmp_path / "r")


@pytest.mark.parametrize("word", ["\x1b[2J", "a\nb", "\u202e", "--\x07=1"])
def test_a_refusal_does_not_carry_what_a_terminal_obeys(word: str) -> None:
    for asked in (f"'{word}'", f"mempalace-broker ensure '{word}'", f"mempalace-broker ensure --palace '/{word}'"):
        with pytest.raises(Refused) as caught:
            allowed(asked, OWN)
        assert str(caught.value).isprintable()


def test_the_refusal_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(VARIABLE, "cat /etc/passwd")
    assert main(["ssh-command"]) == errors.EXIT_USAGE
    said = capsys.readouterr()
    assert "'cat /etc/passwd' is not for this key" in said.err
    assert "Hint:" in said.err
    assert not said.out
    monkeypatch.delenv(VARIABLE)
    assert main(["ssh-command"]) == errors.EXIT_USAGE
    assert "no shell" in capsys.readouterr().err
