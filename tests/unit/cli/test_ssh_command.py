"""What a restricted key may run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker import errors
from mempalace_broker.cli import main
from mempalace_broker.cli.ssh_command import ALLOWED, VARIABLE, Refused, allowed


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("mempalace-broker ensure", ["ensure"]),
        ("mempalace-broker ensure --json", ["ensure"]),
        ("~/.local/bin/mempalace-broker dial-stdio", ["dial-stdio"]),
        ("/opt/x/mempalace-broker ensure --state-root /srv/m", ["ensure", "--state-root", "/srv/m"]),
        ("mempalace-broker ensure --state-root='/srv/a b'", ["ensure", "--state-root", "/srv/a b"]),
        ("mempalace-broker dial-stdio --state-root '~/m'", ["dial-stdio", "--state-root", "~/m"]),
        ("mempalace-broker ensure --palace /p --state-root /r", ["ensure", "--palace", "/p", "--state-root", "/r"]),
    ],
)
def test_our_two_commands(asked: str, words: list[str]) -> None:
    assert allowed(asked, []) == words


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
        allowed(asked, [])


@given(st.text())
def test_whatever_is_asked_only_known_words_come_out(asked: str) -> None:
    try:
        words = allowed(asked, [])
    except Refused:
        return
    assert words[0] in ALLOWED


@given(st.lists(st.sampled_from(["--state-root", "--palace", "--json", "/a", "--x", "-h", "=", "--palace=/b"])))
def test_arguments_are_known_options_with_plain_paths(rest: list[str]) -> None:
    try:
        words = allowed(" ".join(["mempalace-broker", "ensure", *rest]), [])
    except Refused:
        return
    assert words[0] == "ensure"
    assert set(words[1::2]) <= {"--state-root", "--palace"}
    assert all(value.startswith("/") for value in words[2::2])


def test_a_pinned_root_is_used_and_not_to_be_changed() -> None:
    pinned = ["--state-root", "/srv/m"]
    assert allowed("mempalace-broker ensure", pinned) == ["ensure", *pinned]
    assert allowed("mempalace-broker ensure --state-root /srv/m/", pinned) == ["ensure", *pinned]
    with pytest.raises(Refused, match="/other"):
        allowed("mempalace-broker ensure --state-root /other", pinned)


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
