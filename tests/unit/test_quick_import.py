"""Modules that are imported quickly are what Python's own import makes of them, or are left to it."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src/mempalace_broker"
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import lively
from lively.quick_import import import_quickly
if sys.argv[2] == "quick":
    import_quickly()
import lively.below.module as module, lively.below as package
for found in (module, package):
    spec = found.__spec__
    print(spec.name, spec.origin, spec.cached, spec.parent, spec.has_location, spec.submodule_search_locations)
    print(found.__file__, found.__cached__, found.__package__, getattr(found, "__path__", None), found.__doc__)
    print(spec.loader.get_source(spec.name) == open(found.__file__).read(), spec.loader is found.__loader__)
print(module.VALUE, lively.below.module is module, file=sys.stderr)
print(type(module.__loader__).__module__, type(package.__loader__).__module__, file=sys.stderr)
"""
QUICK, OWN = "lively.quick_import", "_frozen_importlib_external"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with the importer in it, a package below, and a module in that."""
    package = tmp_path / "lively"
    (package / "below").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "quick_import.py").write_bytes((SOURCE / "quick_import.py").read_bytes())
    (package / "below/__init__.py").write_text('"""Below."""\n', encoding="utf-8")
    (package / "below/module.py").write_text('"""The module."""\nVALUE = 1\n', encoding="utf-8")
    run(tmp_path, "plain")
    return tmp_path


def run(folder: Path, how: str, *options: str) -> tuple[str, str, list[str]]:
    """What the modules are like, the value, and whose loaders they have."""
    argv = [sys.executable, "-S", *options, "-c", CODE, str(folder), how]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    value, loaders = done.stderr.splitlines()
    return done.stdout, value, loaders.split()


def bytecode(folder: Path, name: str = "below/module.py") -> Path:
    source = folder / "lively" / name
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


def test_a_module_is_the_same_as_from_pythons_own_import(folder: Path) -> None:
    plain, quick = run(folder, "plain"), run(folder, "quick")
    assert quick[:2] == plain[:2]
    assert plain[2] == [OWN, OWN]
    assert quick[2] == [QUICK, QUICK]


def test_an_edited_source_counts_and_not_its_old_bytecode(folder: Path) -> None:
    source = folder / "lively/below/module.py"
    source.write_text("VALUE = 22\n", encoding="utf-8")
    assert run(folder, "quick")[1:] == ("22 True", [OWN, QUICK])
    assert run(folder, "quick")[1:] == ("22 True", [QUICK, QUICK]), "Python wrote the bytecode anew"
    stamp = source.stat().st_mtime + 10
    os.utime(source, (stamp, stamp))
    assert run(folder, "quick")[2] == [OWN, QUICK]


@pytest.mark.parametrize("damage", ["removed", "empty", "of another Python", "judged by a hash", "large"])
def test_bytecode_that_is_not_as_expected_is_left_to_python(folder: Path, damage: str) -> None:
    cached = bytecode(folder)
    data = cached.read_bytes()
    if damage == "removed":
        cached.unlink()
    elif damage == "judged by a hash":
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        py_compile.compile(str(folder / "lively/below/module.py"), str(cached), invalidation_mode=mode)
    elif damage == "large":
        (folder / "lively/below/module.py").write_text(f"VALUE = 1\nTEXT = {'x' * 70_000!r}\n", encoding="utf-8")
        run(folder, "plain")
    else:
        cached.write_bytes({"empty": b"", "of another Python": b"\0" + data[1:]}[damage])
    assert run(folder, "quick")[1:] == ("1 True", [OWN, QUICK])


def test_bytecode_that_is_kept_elsewhere_is_left_to_python(folder: Path, tmp_path: Path) -> None:
    assert run(folder, "quick", "-X", f"pycache_prefix={tmp_path / 'elsewhere'}")[2] == [OWN, OWN]


def test_optimised_bytecode_is_found_under_its_own_name(folder: Path) -> None:
    run(folder, "plain", "-O")
    assert run(folder, "quick", "-O")[1:] == ("1 True", [QUICK, QUICK])
    assert ".opt-1." in run(folder, "quick", "-O")[0]
