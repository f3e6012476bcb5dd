"""A process is named without what may be secret."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mempalace_broker.system.process_command import _python_program, is_ours, process_command


def test_a_process_is_named_without_its_arguments() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()", "--token", "s3cret"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        name = process_command(child.pid)
        child.communicate()
    assert "python" in name
    assert "s3cret" not in name


def test_a_missing_process_has_no_name() -> None:
    assert process_command(2**22 + 12345) == ""
    assert process_command(os.getpid())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["python3", "-P", "-m", "mempalace_broker.broker", "--token", "x"], "python3 -m mempalace_broker.broker"),
        (["python3", "-c", "secret code"], "python3 -c"),
        (["python3", "/opt/bin/mempalace-mcp", "--token", "x"], "mempalace-mcp"),
        (["python3"], "python3"),
        ([], "python3"),
    ],
)
def test_what_a_python_runs(words: list[str], name: str) -> None:
    assert _python_program("python3", words) == name


def test_only_a_program_of_ours_is_ours() -> None:
    for code, ours in (("input('up\\n')", False), ("'mempalace_broker'; input('up\\n')", True)):
        argv = [sys.executable, "-uc", code]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"  # in the middle of exec its command line is empty
            assert is_ours(child.pid) is ours
            child.communicate(b"\n")
    assert not is_ours(2**22 + 12345)
    assert not is_ours(1)
