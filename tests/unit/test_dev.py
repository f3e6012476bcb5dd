"""dev.py and .ci/run: everything is made once, reported clearly, and interrupted cleanly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

import dev
from tests.proctools import eventually

REPO = Path(dev.__file__).parent


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dev, "DEV", tmp_path / ".dev")
    return tmp_path


def step(made: Path, key: str = "k", name: str = "thing") -> dev.Step:
    def make(log: Path) -> None:
        log.write_text("making", encoding="utf-8")
        with (made / name).open("a") as file:
            file.write(key)

    return dev.Step(name, made / name, key, make)


def test_what_is_made_is_left_alone_until_its_key_changes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev.ensure([step(made)])
    assert capsys.readouterr().out.startswith("[1/1] thing ... ")
    dev.ensure([step(made)])
    assert capsys.readouterr().out == ""
    assert (made / "thing").read_text() == "k"
    dev.ensure([step(made, key="l")])
    assert (made / "thing").read_text() == "kl"
    (made / "thing").unlink()
    dev.ensure([step(made, key="l")])
    assert (made / "thing").read_text() == "l"


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt(), dev.Failure("no")])
def test_what_was_interrupted_is_made_again(made: Path, stopped_by: BaseException) -> None:
    def make(log: Path) -> None:
        (made / "thing").touch()
        raise stopped_by

    broken = dev.Step("thing", made / "thing", "k", make)
    with pytest.raises(type(stopped_by)):
        dev.ensure([broken])
    assert not broken.done()


def test_two_at_once_make_it_once(made: Path) -> None:
    with ThreadPoolExecutor(2) as pool, dev.alone():
        waiting = [pool.submit(dev.ensure, [step(made)]) for _ in range(2)]
        assert not wait(waiting, timeout=0.2).done
    assert [future.result(20) for future in waiting] == [None, None]
    assert (made / "thing").read_text() == "k"


def test_a_failed_command_shows_its_end_and_a_hint(made: Path) -> None:
    log = made / "log"
    with pytest.raises(dev.Failure) as error:
        dev.run_logged(log, "/bin/sh", "-c", "echo Temporary failure in name resolution; exit 3")
    text = str(error.value)
    assert "    Temporary failure in name resolution" in text
    assert "The package index can't be reached" in text
    assert f"The whole output: {log}" in text


def test_every_part_has_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = dev.all_steps()
    assert [item.name for item in steps] == ["venv-dev", "engine-3.4.0", "engine-newest", "engine-databases", "model"]
    assert len({item.key for item in steps}) == len(steps)
    assert dev.milvus_step().key not in {item.key for item in steps}
    assert (REPO / f"tests/data/tools-{dev.NEWEST}.json").exists()
    assert (REPO / f"tests/data/tools-{dev.OLDEST}.json").exists()


def test_debian_packages_are_asked_of_the_system(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "DEBIAN", {"sh": "dash", "no-such-program": "no-such-package"})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert dev.debian_steps(["sh"]) == []
    with pytest.raises(dev.Failure, match="no-such-package: install them as root"):
        dev.ensure(dev.debian_steps(["sh", "no-such-program"]))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], False),
        (["-k", "nothing", "-x"], False),
        (["tests/unit"], True),
        (["tests/unit/test_dev.py::test_nothing"], True),
        (["--lf", "tests/nowhere"], False),
    ],
)
def test_arguments_that_name_tests(args: list[str], named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dev.names_tests(args) is named
    ran: list[list[str]] = []

    def record(argv: list[object]) -> int:
        ran.append(list(map(str, argv)))
        return 0

    monkeypatch.setattr(dev, "run", record)
    dev.pytest(args, ["tests/unit", "tests/sim"], "not slow")
    assert ran[0][3:] == ["-m", "not slow", *args, *([] if named else ["tests/unit", "tests/sim"])]
    dev.pytest(args, ["tests/unit"], "not slow", 3)
    assert ran[1][5:9] == ["-n", "3", "--dist", "loadgroup"]


def test_clean_removes_what_was_made_and_no_link(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "ROOT", made)
    (made / ".dev/venv").mkdir(parents=True)
    (made / ".mypy_cache").mkdir()
    (made / "src").mkdir()
    assert dev.main(["clean"]) == 0
    assert sorted(os.listdir(made)) == ["src"]
    (made / ".dev").symlink_to(made / "src")
    assert dev.main(["clean"]) == 1
    assert (made / "src").is_dir()


@pytest.mark.parametrize("argv", [[], ["fly"], ["clean", "--hard"], ["setup", "now"], ["clients", "now"]])
def test_what_it_does_not_know(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        dev.main(argv)
    assert error.value.code == 2
    assert "usage: dev.py" in capsys.readouterr().err


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "dev.py", "--help"], cwd=REPO, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0
    assert all(
        f"dev.py {name}" in done.stdout for name in ("demo", "test", "slow", "vm", "setup", "lock", "clients", "clean")
    )


def old_python() -> str | None:
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.[89].*/bin/python"))
    for name in ("python3.10", "python3.9", "python3.8", *map(str, pyenv)):
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", ""], check=False, capture_output=True, timeout=30).returncode == 0:
            return found
    return None


def test_an_old_python_is_told_so() -> None:
    old = old_python()
    if old is None:
        pytest.skip("no older Python here")
    done = subprocess.run([old, "dev.py", "test"], cwd=REPO, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dev.py needs Python 3.11 or newer, this is 3.")


def test_ctrl_c_is_for_the_child_alone_and_then_said(tmp_path: Path) -> None:
    code = (
        "import sys, dev\n"
        "dev.command_setup = lambda o, r: dev.run([sys.executable, '-c', sys.argv[1]])\n"
        "sys.exit(dev.main(['setup']))\n"
    )
    child = (
        "import pathlib, signal, sys, time\n"
        f"flag = pathlib.Path({str(tmp_path / 'flag')!r})\n"
        "try:\n    flag.touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    flag.write_text('tidied up'); sys.exit(2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, child], cwd=REPO, stderr=subprocess.PIPE, start_new_session=True
    )
    eventually((tmp_path / "flag").exists, what="the child")
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"dev.py: interrupted" in stderr
    assert (tmp_path / "flag").read_text() == "tidied up"


@pytest.mark.parametrize(
    ("closing", "status"),
    [("=== 3 passed, 1 skipped in 2.50s ===", 0), ("=== 1 failed, 2 passed in 12.00s (0:00:12) ===", 1)],
)
def test_ci_ends_with_the_closing_line_of_pytest(tmp_path: Path, closing: str, status: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPO / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "dev.py").write_text(
        "import os, sys\nassert sys.argv[1:] == ['test'] and os.environ['CI'] == 'true'\n"
        f"print({closing!r})\nprint('9 passed by in the morning')\nsys.exit({status})\n",
        encoding="utf-8",
    )
    done = subprocess.run([tmp_path / ".ci/run"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == closing
