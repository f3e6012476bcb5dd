"""Mutation testing of the pure machines: `python3 dev.py mutants [--count N] [--seed N] [PATTERN ...]`.

A mutant is the source with one small fault: a comparison turned (`<` for `<=`, `==` for `!=`), a call dropped, `and`
and `or` swapped, a `not` lost. Each mutant is written into a copy of the tree and meets the tests that mirror its
module, then the simulations. A test that fails catches it; so does a run that never ends. A mutant that survives is
a missing test, or it behaves like the original. The latter are listed, each with its reason, in EQUIVALENT.
Before the mutants, their tests run without one: tests that fail anyway would catch everything.

The well-kept mutation testers were looked at first: cosmic-ray 8.7 has no operator that drops a call and runs the same
tests for every mutant; mutmut 3.8 takes no random sample and no choice of operators.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/mempalace_broker")
EQUIVALENT = ROOT / "tests" / "mutants.toml"
WANTED = 0.95  # caught, of those that change behaviour
LIMIT_S = 900.0  # for one run of tests; long, as on a busy machine the slowest takes minutes
LIMITS = "ulimit -t 60 -v 4194304"  # seconds of processor, twice what the slowest takes, and KiB of memory
OVER_LIMIT = (-signal.SIGXCPU, -signal.SIGKILL)
COPIED = ("src", "tests", "pyproject.toml", "dev.py")
# Which tests meet the faults of a package beside those that mirror the module, the quickest first.
FURTHER: dict[str, tuple[list[str], ...]] = {
    "protocol": (["tests/unit/shim", "tests/unit/broker/machine"], ["tests/sim"], ["tests/unit/route"]),
    "shim": (["tests/sim"],),
    "broker": (["tests/sim"],),
    "lease": (["tests/unit/lease", "tests/unit/broker"], ["tests/model"]),
    "locality": (["tests/unit/locality", "tests/unit/shim"], ["tests/unit/route"]),
    "route": (["tests/unit/route"],),
}
TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class BrokenTests(Exception):
    """Tests that fail anyway; what they say of mutants means nothing."""


@dataclass(frozen=True)
class Mutant:
    """One fault: a replacement for some characters of a file (offsets in bytes of UTF-8)."""

    file: str
    line: int
    function: str
    begin: int
    end: int
    before: str
    after: str
    twin: int = 1  # its number among equal ones in the function, from 1

    def __str__(self) -> str:
        """For people: the place, and the code before and after."""
        return f"{self.file}:{self.line} {self.function}: {self.before!r} -> {self.after!r}"

    @property
    def key(self) -> str:
        """Its name in EQUIVALENT, which survives changes elsewhere in the file."""
        twin = f" ({self.twin})" if self.twin > 1 else ""
        return f"{self.file.removeprefix(str(PACKAGE) + '/')} {self.function}: {self.before} -> {self.after}{twin}"


def machines() -> list[Path]:
    """Files whose decisions are pure, relative to ROOT."""
    files = [*(ROOT / PACKAGE).glob("*/machine/*.py"), *(ROOT / PACKAGE / "protocol").glob("*.py")]
    return sorted(path.relative_to(ROOT) for path in files if path.name != "__init__.py")


class _Finder(ast.NodeVisitor):
    """Collects the mutants of one file."""

    def __init__(self, file: str, text: str) -> None:
        self.found: list[Mutant] = []
        self._file = file
        self._data = text.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._names: list[str] = []

    def _add(self, node: ast.expr | ast.stmt, after: str) -> None:
        begin = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = self._data[begin:end].decode()
        function = ".".join(self._names)
        twin = 1 + sum((m.function, m.before, m.after) == (function, before, after) for m in self.found)
        self.found.append(Mutant(self._file, node.lineno, function, begin, end, before, after, twin))

    def _inside(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self._names.append(node.name)
        self.generic_visit(node)
        self._names.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Note where we are."""
        self._inside(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Note where we are."""
        self._inside(node)

    def visit_If(self, node: ast.If) -> None:
        """Skip what only type checkers read."""
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Turn each comparison of a chain."""
        for index, operator in enumerate(node.ops):
            turned: list[ast.cmpop] = [*node.ops[:index], TURNED[type(operator)](), *node.ops[index + 1 :]]
            self._add(node, f"({ast.unparse(ast.Compare(node.left, turned, node.comparators))})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Swap `and` and `or`."""
        other: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._add(node, f"({ast.unparse(ast.BoolOp(other, node.values))})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Lose a `not`."""
        if isinstance(node.op, ast.Not):
            self._add(node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Drop a call that is a statement."""
        if isinstance(node.value, ast.Call):
            self._add(node, "pass")
        self.generic_visit(node)


def mutants_in(file: str, text: str) -> list[Mutant]:
    """All mutants of one source text."""
    finder = _Finder(file, text)
    finder.visit(ast.parse(text))
    return finder.found


def every_mutant() -> Iterator[Mutant]:
    """All mutants of all machines."""
    for path in machines():
        yield from mutants_in(str(path), (ROOT / path).read_text(encoding="utf-8"))


def tests_for(file: str) -> Iterator[list[str]]:
    """Files or directories of tests, the quickest first; each is run only if those before it caught nothing."""
    room = Path(file).relative_to(PACKAGE).parent
    mirrored = Path("tests/unit") / room
    own = mirrored / f"test_{Path(file).stem}.py"
    if (ROOT / own).exists():
        yield [str(own)]
    yield [str(mirrored)]
    yield from FURTHER[room.parts[0]]


def copy_tree(target: Path) -> None:
    """What the tests need of this checkout."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, target / name)


def fails(tree: Path, tests: list[str], *, bytecode: str = "1") -> bool:
    """Whether these tests notice what was done to the tree. A run without an end was noticed.

    Args:
        bytecode: "" to write compiled modules beside the sources, where the following runs find them.
    """
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": bytecode}
    argv = ["/bin/sh", "-c", f'{LIMITS}; exec "$@"', "sh", sys.executable, "-m", "pytest", "-x", "-q", "--no-header"]
    argv += ["-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow and not engine", *tests]
    with subprocess.Popen(
        argv, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as run:
        try:
            output, _ = run.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, 9)
            return True
    noticed = (1, 2, *OVER_LIMIT)  # 2: the mutant can't even be imported
    if run.returncode not in (0, 5, *noticed):  # 5: no test is left by the marks
        raise RuntimeError(f"pytest ended with {run.returncode} on {tests}:\n{output[-2000:]}")
    return run.returncode in noticed


@contextlib.contextmanager
def planted(tree: Path, mutant: Mutant) -> Iterator[None]:
    """The tree with this fault in it. Afterwards the file has its old time, so that its bytecode counts again."""
    target = tree / mutant.file
    original, status = target.read_bytes(), target.stat()
    try:
        target.write_bytes(original[: mutant.begin] + mutant.after.encode() + original[mutant.end :])
        yield
    finally:
        target.write_bytes(original)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def caught(tree: Path, mutant: Mutant) -> bool:
    """Whether a test notices this fault."""
    with planted(tree, mutant):
        return any(fails(tree, tests) for tests in tests_for(mutant.file))


def broken_tests(tree: Path, chosen: list[Mutant]) -> list[str]:
    """Those of the tests for these mutants that fail without any; a file is run with its directory."""
    needed = {" ".join(tests): tests for mutant in chosen for tests in tests_for(mutant.file)}
    return [name for name, tests in needed.items() if not name.endswith(".py") and fails(tree, tests, bytecode="")]


def known_equivalents() -> dict[str, str]:
    """Mutants that behave like the original -> why."""
    if not EQUIVALENT.exists():
        return {}
    return dict(tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", {}))


def choose(patterns: list[str], count: int, seed: int) -> list[Mutant]:
    """A random sample of the mutants whose description holds one of the patterns; count 0: all of them."""
    known = known_equivalents()
    fit = [m for m in every_mutant() if m.key not in known and (not patterns or any(p in str(m) for p in patterns))]
    return random.Random(seed).sample(fit, min(count, len(fit))) if count else fit


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="dev.py mutants", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="only mutants whose description has this text")
    parser.add_argument("--count", type=int, default=36, help="how many, 0 = all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="which sample; printed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 enough were caught, 1 too many survived, 2 nothing could be measured."""
    options = parse(argv)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    chosen = choose(options.patterns, options.count, seed)
    if not chosen:
        print("no mutant fits", file=sys.stderr)
        return 2
    try:
        survivors = run_all(chosen, max(1, options.jobs), quiet=options.json)
    except BrokenTests as exc:
        print(exc, file=sys.stderr)
        return 2
    share = 1 - len(survivors) / len(chosen)
    if options.json:
        result = {"seed": seed, "mutants": len(chosen), "survivors": [str(m) for m in survivors], "share": share}
        print(json.dumps(result, indent=1))
    else:
        print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught ({share:.0%}); seed {seed}")
    return 0 if share >= WANTED else 1


def run_all(chosen: list[Mutant], jobs: int, *, quiet: bool) -> list[Mutant]:
    """Try each mutant, in as many copies of the tree as there are jobs; those that survived.

    Raises:
        BrokenTests: tests fail without any mutant.
    """
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mpb-mutants-") as folder:
        trees = [Path(folder) / str(number) for number in range(jobs)]
        copy_tree(trees[0])
        if broken := broken_tests(trees[0], chosen):
            raise BrokenTests(f"fail without a mutant: {', '.join(broken)}")
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree)
        free = trees.copy()

        def attempt(mutant: Mutant) -> tuple[Mutant, bool, float]:
            tree = free.pop()
            started = time.monotonic()
            try:
                return mutant, caught(tree, mutant), time.monotonic() - started
            finally:
                free.append(tree)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for future in concurrent.futures.as_completed([pool.submit(attempt, mutant) for mutant in chosen]):
                mutant, was_caught, seconds = future.result()
                if not was_caught:
                    survivors.append(mutant)
                if not quiet:
                    print(f"{'caught  ' if was_caught else 'SURVIVED'} {seconds:5.1f} s  {mutant}", flush=True)
    return survivors


if __name__ == "__main__":
    sys.exit(main())
