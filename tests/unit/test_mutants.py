"""tests/mutants.py: which faults it finds, where they are, which tests are meant for them."""

from __future__ import annotations

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


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    first = mutants.choose([], 5, 3)
    assert first == mutants.choose([], 5, 3)
    assert first != mutants.choose([], 5, 4)
    assert {mutant.file for mutant in mutants.choose(["scheduler.py"], 9, 1)} == {
        str(PACKAGE / "broker/machine/scheduler.py")
    }
