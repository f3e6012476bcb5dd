"""tests/mutants.py in a small checkout, with real runs of pytest: what is told and left out, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import PACKAGE, mutants_in

FILE = str(PACKAGE / "broker" / "machine" / "thing.py")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one machine and one test, which notices one of its two faults."""
    machine = tmp_path / FILE
    tests = tmp_path / "tests" / "unit" / "broker" / "machine"
    for folder in (machine.parent, tests, tmp_path / "tests" / "sim"):
        folder.mkdir(parents=True)
    machine.write_text("def step(a, b):\n    return (a < 1, b < 1)\n", encoding="utf-8")
    (tests / "test_thing.py").write_text(
        "import runpy\nfrom pathlib import Path\n\n\ndef test_step():\n"
        f"    step = runpy.run_path(Path(__file__).parents[4] / {FILE!r})['step']\n"
        "    assert step(1, 0) == (False, True)\n",
        encoding="utf-8",
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow", "engine"]\n')
    (tmp_path / "dev.py").touch()
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take most of the time of such a short run
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "EQUIVALENT", tmp_path / "tests" / "mutants.toml")
    return tmp_path


def test_what_was_planted_is_taken_out_again(small: Path) -> None:
    before, time = (small / FILE).read_bytes(), (small / FILE).stat().st_mtime_ns
    [mutant, _] = mutants_in(FILE, before.decode())
    with mutants.planted(small, mutant):
        assert b"(a <= 1)" in (small / FILE).read_bytes()
    assert ((small / FILE).read_bytes(), (small / FILE).stat().st_mtime_ns) == (before, time)


def test_what_survives_is_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["--count", "0", "--seed", "7", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "caught" in out.splitlines()[0]
    assert "'a < 1' -> '(a <= 1)'" in out.splitlines()[0]
    assert "SURVIVED" in out.splitlines()[1]
    assert out.splitlines()[2] == "1 of 2 caught (50%); seed 7"


def test_an_equivalent_is_left_out(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "broker/machine/thing.py step: b < 1 -> (b <= 1)"
    mutants.EQUIVALENT.write_text(f'[equivalent]\n"{key}" = "Nobody asks."\n', encoding="utf-8")
    assert mutants.main(["--json", "--seed", "1", "--jobs", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seed": 1, "mutants": 1, "survivors": [], "share": 1.0}


def test_nothing_to_measure(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["no such text"]) == 2
    assert capsys.readouterr().err == "no mutant fits\n"
    with pytest.raises(SystemExit) as usage:
        mutants.main(["--count", "many"])
    assert usage.value.code == 2


def test_tests_that_fail_anyway_measure_nothing(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "tests/unit/broker/machine/test_thing.py").write_text("def test():\n    assert False\n")
    assert mutants.main(["--jobs", "1"]) == 2
    assert capsys.readouterr().err.startswith("fail without a mutant: tests/unit/broker/machine")


def test_a_fault_that_loops_for_ever_is_caught(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "LIMITS", "ulimit -t 1")
    (small / "tests/sim/test_loop.py").write_text("def test():\n    while True:\n        pass\n")
    assert mutants.fails(small, ["tests/sim"])


def test_a_run_that_waits_for_ever_is_ended(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "LIMIT_S", 2.0)
    (small / "tests/sim/test_wait.py").write_text("import threading\n\n\ndef test():\n    threading.Event().wait()\n")
    assert mutants.fails(small, ["tests/sim"])


def test_a_run_that_pytest_refuses_is_an_error_and_not_a_catch(small: Path) -> None:
    with pytest.raises(RuntimeError, match="pytest ended with 4"):
        mutants.fails(small, ["tests/nowhere"])
