"""The command line as a whole: exit codes, error lines, output for machines. No broker, no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mempalace_broker import __version__
from mempalace_broker.cli import main
from mempalace_broker.cli.outcome import EXIT_INTERRUPTED, EXIT_PIPE, guarded
from mempalace_broker.errors import (
    EXIT_CANNOT_RUN,
    EXIT_CONFIG,
    EXIT_FAILURE,
    EXIT_NOT_RUNNING,
    EXIT_OK,
    EXIT_USAGE,
    EngineNotFound,
)
from mempalace_broker.system.find_engine import SETTING
from mempalace_broker.system.private import VARIABLE, state_folder

PROGRAM = [sys.executable, "-c", "import sys; from mempalace_broker.cli import main; sys.exit(main())"]
COMMANDS = ("demo", "run", "ensure", "status", "stop", "restart", "logs", "doctor", "model")


@pytest.fixture
def palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A palace that nobody serves, in a HOME of its own."""
    for name in [name for name in os.environ if name.startswith("MEMPAL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path / "palace")


def fake_engine(folder: Path, version: str) -> str:
    """An interpreter that knows nothing but its mempalace."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{json.dumps([str(path), version, [3, 11]])}'\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_version_of_the_broker_and_of_the_engine_that_it_would_run(
    palace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert palace
    monkeypatch.setenv(SETTING, fake_engine(tmp_path, "3.9.1"))
    assert main(["--version"]) == EXIT_OK
    ours, engine = capsys.readouterr().out.splitlines()
    assert ours == f"mempalace-broker, version {__version__}"
    assert engine == f"mempalace, version 3.9.1, in {os.environ[SETTING]}"


def test_version_without_an_engine(
    palace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SETTING, f"{palace}/nothing")
    assert main(["--version"]) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[1].startswith("mempalace: none that can be used")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == EXIT_OK
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == EXIT_OK
    assert "Usage: mempalace-broker" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["nonsense"], ["status", "--nonsense"], ["logs", "-n", "-1"]])
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == EXIT_USAGE
    captured = capsys.readouterr()
    assert not captured.out
    assert "Error:" in captured.err


def test_status_without_a_broker_exits_with_3_and_creates_nothing(
    palace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--palace", palace]) == EXIT_NOT_RUNNING
    assert "not running" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_status_json_is_one_document(palace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--palace", palace]) == EXIT_NOT_RUNNING
    found = json.loads(capsys.readouterr().out)
    assert found["running"] is False
    assert found["exit_code"] == EXIT_NOT_RUNNING
    assert found["palace"]["path"] == palace
    assert found["palace"]["by"] == "flag"


def test_status_shows_why_the_last_one_left(
    palace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    note = {"reason": "idle for 900 s", "at": 1795000000.0, "pid": 7, "version": "0.1.0"}
    state_folder(palace, os.environ).file("broker-exit.json").write(json.dumps(note).encode())
    assert main(["status", "--palace", palace]) == EXIT_NOT_RUNNING
    assert "idle for 900 s (pid 7" in capsys.readouterr().out


def test_stop_without_a_broker_succeeds(palace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--palace", palace]) == EXIT_OK
    assert main(["stop", "--json", "--palace", palace]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no broker runs")
    assert json.loads(lines[1]) == {"was_running": False, "pid": None}


def test_logs_without_a_log_exits_with_3(palace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "--palace", palace]) == EXIT_NOT_RUNNING
    assert "Hint:" in capsys.readouterr().err


def test_output_for_pipes_has_no_escapes(palace: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", "--palace", palace])
    main(["doctor", "--palace", palace])
    assert "\x1b" not in capsys.readouterr().out


def test_a_wrong_endpoint_is_configuration(
    palace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMPALACE_BROKER", "carrier-pigeon://loft")
    assert main(["status", "--palace", palace]) == EXIT_CONFIG
    err = capsys.readouterr().err
    assert err.startswith("mempalace-broker: ")
    assert err.count("\n") == 1


def test_settings_that_make_no_sense_are_a_finding(
    palace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "config.toml").write_text("[broker]\nidel_s = 1\n", encoding="utf-8")
    main(["doctor", "--json", "--palace", palace])
    found = json.loads(capsys.readouterr().out)
    assert any(row["what"] == "settings" and row["severity"] == "error" for row in found["findings"])
    assert found["ok"] is False


# --- guarded


def failing(exc: BaseException) -> click.Command:
    def body() -> None:
        raise exc

    return click.Command("x", callback=body)


def test_an_expected_error_is_one_line_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = EngineNotFound("none\nfound.", hint="install it")
    assert guarded(failing(error), []) == error.exit_code
    assert capsys.readouterr().err == "mempalace-broker: none found. Hint: install it\n"


def test_an_unexpected_error_does_not_show_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEMPALACE_BROKER_TRACEBACK", raising=False)
    assert guarded(failing(ZeroDivisionError("oops")), []) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in err
    assert "mempalace-broker logs" in err
    assert "Traceback" not in err


def test_the_traceback_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPALACE_BROKER_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        guarded(failing(ZeroDivisionError()), [])


def test_an_interrupt_that_another_exception_hides_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Python raises RuntimeError for one that falls into the making of a class, as during imports."""

    @click.command()
    def interrupted() -> None:
        class Hiding:
            def __set_name__(self, owner: type, name: str) -> None:
                raise KeyboardInterrupt

        try:
            type("Made", (), {"hiding": Hiding()})
        except RuntimeError as exc:  # Python 3.11
            raise TypeError("of whoever caught it") from exc

    assert guarded(interrupted, []) == EXIT_INTERRUPTED
    assert capsys.readouterr().err.strip() == "mempalace-broker: interrupted."


def test_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(failing(KeyboardInterrupt()), []) == EXIT_INTERRUPTED
    assert capsys.readouterr().err.strip() == "mempalace-broker: interrupted."


def test_exit_code_is_what_the_command_returns() -> None:
    assert guarded(click.Command("x", callback=lambda: 4), []) == 4
    assert guarded(click.Command("x", callback=lambda: None), []) == EXIT_OK


def test_a_reader_that_left_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert guarded(failing(BrokenPipeError()), []) == EXIT_PIPE


@pytest.mark.parametrize(
    "args", [["--help"], ["ssh-command", "--help"], ["--version"], ["status"], ["status", "--json"], ["doctor"]]
)
def test_a_real_reader_that_left_is_141(args: list[str], palace: str) -> None:
    """What a command writes meets the closed pipe inside of click, or of rich."""
    argv = [*PROGRAM, *args, *([] if args[-1].startswith("--h") or args[-1] == "--version" else ["--palace", palace])]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (EXIT_PIPE, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize(("redirected", "said"), [(">/dev/full", True), (">/dev/full 2>&1", False)])
@pytest.mark.parametrize("args", [["--help"], ["stop"], ["status", "--json"]])
def test_a_full_disk_below_the_output_is_said_once(args: list[str], redirected: str, said: bool, palace: str) -> None:
    where = ["--palace", palace] if args != ["--help"] else []
    argv = ["sh", "-c", f'"$@" {redirected}', "sh", *PROGRAM, *args, *where]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == EXIT_FAILURE
    assert done.stderr.startswith("mempalace-broker: cannot write: ") == said
    assert done.stderr.count("\n") == said


def test_where_stderr_takes_nothing_the_code_still_tells() -> None:
    done = subprocess.run(["sh", "-c", '"$@" 2>/dev/full', "sh", *PROGRAM, "nonsense"], check=False, timeout=60)
    assert done.returncode == EXIT_USAGE


@pytest.mark.parametrize("args", [["status"], ["doctor"], ["status", "--json"], ["logs"], ["--help"], ["nonsense-é"]])
def test_a_terminal_of_another_encoding_gets_replaced_characters(args: list[str], palace: str) -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    where = [] if args[0].startswith(("-", "n")) else ["--palace", f"{palace}-gedächtnis"]
    done = subprocess.run(PROGRAM + args + where, env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode in (0, 2, 3, 4)
    assert done.stdout.isascii()
    assert b"odec" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_descriptors_change_nothing(closed: str, palace: str) -> None:
    line = f'"$@" {closed}'
    argv = ["sh", "-c", line, "sh", *PROGRAM, "status", "--palace", palace]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (EXIT_NOT_RUNNING, b"")


def test_a_closed_stdin_cannot_be_asked(palace: str) -> None:
    argv = ["sh", "-c", '"$@" <&-', "sh", *PROGRAM, "setup", "--palace", palace]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == EXIT_USAGE
    assert "there is nobody to ask" in done.stderr


def test_a_palace_whose_name_has_a_line_end_is_one_line(palace: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("stop", "take-over"):
        assert main([command, "--palace", f"{palace}\nx"]) == EXIT_OK
        assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("args", [["status"], ["doctor"], ["doctor", "--json"], ["logs"], ["stop"]])
def test_a_path_that_is_not_utf_8(args: list[str], palace: str) -> None:
    argv: list[str | bytes] = [*PROGRAM, *args, "--palace", os.fsencode(palace) + b"-ged\xe4chtnis"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert b"odec" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_disk_behind_the_output_is_named(palace: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        argv = [*PROGRAM, "status", "--palace", palace]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == EXIT_FAILURE
    assert done.stderr == b"mempalace-broker: cannot write: No space left on device. Hint: make room, then try again\n"


def test_a_file_of_no_use_to_a_command_is_named_with_the_step_that_helps(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    argv = [*PROGRAM, "exclusive", "--palace", str(tmp_path / "palace"), "--", str(tmp_path / "file")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == EXIT_CANNOT_RUN
    assert "is not an executable file. Hint: chmod +x it" in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/x"),
            "cannot use /x: Permission denied. Hint: give yourself access",
        ),
        (OSError(30, "Read-only file system", "/x"), "cannot use /x: Read-only file system. Hint: mount it writable"),
        (OSError(5, "Input/output error", "/x"), "cannot use /x: Input/output error. Hint: check the disk"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "unexpected FileNotFoundError"),
    ],
)
def test_an_error_with_a_file_has_the_hint_that_fits_it(
    error: OSError, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        raise error

    assert guarded(command, []) == EXIT_FAILURE
    assert said in capsys.readouterr().err


def test_one_token_at_a_time(palace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--http", "--metrics", "--palace", palace]) == EXIT_USAGE
    assert "give one of the two" in capsys.readouterr().err
