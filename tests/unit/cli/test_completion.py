"""Completion by a shell: as bash asks for it, and the scripts for three shells."""

from __future__ import annotations

import pytest

from mempalace_broker.cli import main
from mempalace_broker.cli.outcome import COMPLETE_VARIABLE
from mempalace_broker.errors import EXIT_OK, EXIT_USAGE


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("st", {"plain,status", "plain,stop"}),
        ("status --w", {"plain,--watch"}),
        ("model in", {"plain,install"}),
        ("doctor --palace pal", {"dir,pal"}),
        ("demo --dir x", {"dir,x"}),
    ],
)
def test_bash_asks(
    words: str, offered: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"mempalace-broker {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    assert main([]) == EXIT_OK
    assert set(capsys.readouterr().out.split()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_us(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == EXIT_OK
    script = capsys.readouterr().out
    assert f"{COMPLETE_VARIABLE}={shell}_complete" in script


def test_the_shell_of_the_user(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion"]) == EXIT_OK
    assert "commandline" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["/bin/tcsh", ""])
def test_a_shell_that_has_no_completion(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", shell)
    assert main(["completion"]) == EXIT_USAGE
    assert "bash, zsh, fish" in capsys.readouterr().err
