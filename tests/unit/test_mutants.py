"""tests/mutants.py: which faults it finds, how it plants them, what it leaves out, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import FURTHER, PACKAGE, ROOT, every_mutant, mutants_in

FILE = str(PACKAGE / "broker" / "machine" / "thing.py")


def faults(text: str) -> list[tuple[str, str]]:
    return [(mutant.before, mutant.after) for mutant in mutants_in(FILE, text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a < b", [("a < b", "(a <= b)")]),
        ("a >= b", [("a >= b", "(a > b)")]),
        ("a == b", [("a == b", "(a != b)")]),
        ("a is not b", [("a is not b", "(a is b)")]),
        ("a in b", [("a in b", "(a not in b)")]),
        ("a < b < c", [("a < b < c", "(a <= b < c)"), ("a < b < c", "(a < b <= c)")]),
        ("a and b and c", [("a and b and c", "(a or b or c)")]),
        ("a or not b", [("a or not b", "(a and (not b))"), ("not b", "(b)")]),
        ("-a", []),
        ("self.go(now)", [("self.go(now)", "pass")]),
        ("found = self.go(now)", []),
        ("if TYPE_CHECKING:\n    go()", []),
        ("if ready:\n    go()", [("go()", "pass")]),
    ],
)
def test_which_faults_are_found(text: str, found: list[tuple[str, str]]) -> None:
    assert faults(text) == found


def test_a_mutant_knows_its_place_in_bytes_and_in_words() -> None:
    text = 'class Machine:\n    name = "Ä"; same = "é" == "e"\n\n    def step(self):\n        go(\n            1)\n'
    compared, dropped = mutants_in(FILE, text)
    assert (compared.function, compared.line, dropped.function, dropped.line) == ("Machine", 2, "Machine.step", 5)
    assert text.encode()[compared.begin : compared.end].decode() == '"é" == "e"'
    assert text.encode()[dropped.begin : dropped.end].decode() == "go(\n            1)"
    assert str(compared) == f"{FILE}:2 Machine: '\"é\" == \"e\"' -> \"('é' != 'e')\""


def test_a_key_survives_changes_elsewhere_and_names_one_mutant() -> None:
    body = "def step():\n    go()\n    go()\n"
    keys = [mutant.key for mutant in mutants_in(FILE, body)]
    assert keys == ["broker/machine/thing.py step: go() -> pass", "broker/machine/thing.py step: go() -> pass (2)"]
    moved = mutants_in(FILE, "A = 1 < 2\n\n\ndef other():\n    go()\n\n\n" + body)
    assert [mutant.key for mutant in moved if mutant.function == "step"] == keys
    every = [mutant.key for mutant in every_mutant()]
    assert len(every) == len(set(every))


def test_mutants_of_the_machines_still_compile() -> None:
    for mutant in mutants.choose([], 40, 1):
        source = (ROOT / mutant.file).read_bytes()
        compile(source[: mutant.begin] + mutant.after.encode() + source[mutant.end :], str(mutant), "exec")


def test_all_machines_and_nothing_else_are_meant() -> None:
    files = {str(path.relative_to(PACKAGE)) for path in mutants.machines()}
    assert {"broker/machine/scheduler.py", "protocol/framing.py", "lease/machine/hold.py"} <= files
    assert {file.partition("/")[0] for file in files} == set(FURTHER)
    assert not any(file.endswith("__init__.py") or file.startswith(("system/", "cli/")) for file in files)


def test_the_tests_of_each_machine_exist() -> None:
    for path in mutants.machines():
        stages = list(mutants.tests_for(str(path)))
        for tests in stages:
            assert all((ROOT / name).exists() for name in tests), f"{path}: {tests}"
        assert stages[-len(FURTHER[path.relative_to(PACKAGE).parts[0]]) - 1] == [
            str(Path("tests/unit") / path.relative_to(PACKAGE).parent)
        ]


def test_its_own_test_comes_first() -> None:
    scheduler = str(PACKAGE / "broker" / "machine" / "scheduler.py")
    assert list(mutants.tests_for(scheduler)) == [
        ["tests/unit/broker/machine/test_scheduler.py"],
        ["tests/unit/broker/machine"],
        ["tests/sim"],
    ]


def test_each_equivalent_names_a_mutant_that_exists_and_a_reason() -> None:
    known = mutants.known_equivalents()
    assert known.keys() - {mutant.key for mutant in every_mutant()} == set(), "changed or gone: judge them anew"
    assert all(reason.strip().endswith(".") for reason in known.values())


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


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    first = mutants.choose([], 5, 3)
    assert first == mutants.choose([], 5, 3)
    assert first != mutants.choose([], 5, 4)
    assert {mutant.file for mutant in mutants.choose(["scheduler.py"], 9, 1)} == {
        str(PACKAGE / "broker/machine/scheduler.py")
    }


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
