"""What a program settles first, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = "import os, sys; from mempalace_broker.system import startup; "
LEGACY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(code: str, *args: str | bytes, **env: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-c", CODE + code, *args]
    return subprocess.run(argv, env={"PATH": os.environ["PATH"], **env}, capture_output=True, check=False, timeout=30)


def test_an_interrupt_exits_with_130_and_no_traceback() -> None:
    done = run("startup.exit_on(startup.INTERRUPT); os.kill(os.getpid(), startup.INTERRUPT)")
    assert (done.returncode, done.stderr) == (130, b"")


def test_from_then_on_it_raises_again() -> None:
    code = "startup.exit_on(startup.INTERRUPT); startup.interrupts_raise(); os.kill(os.getpid(), startup.INTERRUPT)"
    assert b"KeyboardInterrupt" in run(code).stderr


def test_what_is_ignored_stays_ignored() -> None:
    code = "startup.exit_on(startup.HANGUP); os.kill(os.getpid(), startup.HANGUP); print(1)"
    argv = [sys.executable, "-c", CODE + code]
    ignored = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run(argv, capture_output=True, check=False, timeout=30, preexec_fn=ignored)
    assert done.stdout == b"1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS reads all paths as UTF-8")
def test_paths_are_utf_8_in_every_locale_and_output_is_the_terminals(tmp_path: Path) -> None:
    code = "startup.use_utf8(); print(ascii(sys.argv[1:]), sys.getfilesystemencoding(), sys.stdout.encoding)"
    words = ["gedächtnis".encode(), b"ged\xe4chtnis"]
    told = b"['ged\\xe4chtnis', 'ged\\udce4chtnis']"
    assert run(code, *words, LC_ALL="C.UTF-8").stdout == told + b" utf-8 utf-8\n"
    assert run(code, *words, **LEGACY).stdout == told + b" utf-8 ascii\n"
    assert run(code, *words, **LEGACY, PYTHONIOENCODING="latin-1").stdout == told + b" utf-8 iso8859-1\n"


def test_missing_descriptors_are_occupied() -> None:
    code = "os.close(0); os.close(2); startup.occupy_standard_descriptors(); print(os.open('/', os.O_RDONLY))"
    assert run(code).stdout == b"3\n"


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("from mempalace_broker.cli import main; sys.exit(main())", "/click/__init__.py"),
        ("from mempalace_broker.cli import main; sys.exit(main())", "/mempalace_broker/cli/status.py"),
        ("from mempalace_broker.shim.main import entry; entry()", "/mempalace_broker/shim/pump.py"),
    ],
)
def test_ctrl_c_while_a_command_is_loaded_prints_no_traceback(program: str, module: str) -> None:
    code = f"""
def interrupt(event, args):
    if event == "exec" and args[0].co_filename.endswith({module!r}):  # whichever finder found it
        os.kill(os.getpid(), startup.INTERRUPT)
sys.addaudithook(interrupt)
sys.argv[1:] = ["status"] * ("cli" in {program!r})
{program}
"""
    done = run("pass\n" + code)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
