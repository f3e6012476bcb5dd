"""Lean imports: a module that is not used is not loaded, one that is used is the real one, and errors stay errors."""

from __future__ import annotations

import builtins
import importlib
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.engine import lean_imports

MODULE = "mpb_rarely_used"
LOADED = "MPB_TEST_LOADED"


@pytest.fixture
def deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that says when it is loaded, deferred."""
    package = tmp_path / MODULE
    package.mkdir()
    (package / "__init__.py").write_text(f"import os\nos.environ['{LOADED}'] = 'yes'\nfrom .part import One, two\n")
    (package / "part.py").write_text("class One:\n    pass\ndef two(n, *, more=0):\n    return n + more\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lean_imports, "_DEFERRED", {MODULE: ("One", "two"), "mpb_not_installed": ()})
    monkeypatch.setattr(lean_imports, "_finder", lean_imports._Finder())
    monkeypatch.setattr(sys, "meta_path", [lean_imports._finder, *sys.meta_path])
    monkeypatch.delenv(LOADED, raising=False)
    yield MODULE
    for name in [name for name in sys.modules if name.startswith(MODULE)]:
        del sys.modules[name]


def test_a_deferred_module_is_loaded_when_it_is_used(deferred: str) -> None:
    stand_in: Any = importlib.import_module(deferred)
    two = stand_in.two
    assert LOADED not in os.environ
    assert two(1, more=2) == 3
    assert LOADED in os.environ
    real = sys.modules[deferred]
    assert real is not stand_in
    assert stand_in.One is real.One
    assert isinstance(stand_in.One(), real.One)
    assert importlib.import_module(deferred) is real


def test_an_attribute_that_was_not_foreseen_loads_it(deferred: str) -> None:
    stand_in = importlib.import_module(deferred)
    assert stand_in.part.One
    with pytest.raises(AttributeError):
        stand_in.nowhere  # noqa: B018


def test_a_part_of_it_can_be_imported_by_itself(deferred: str) -> None:
    importlib.import_module(deferred)
    part: Any = importlib.import_module(f"{deferred}.part")
    stand_in: Any = importlib.import_module(deferred)
    assert stand_in.part is part
    assert stand_in.two(1) == 1
    assert stand_in.One is part.One


def test_what_is_not_installed_stays_missing(deferred: str) -> None:
    assert deferred
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mpb_not_installed")


def test_methods_are_not_compared_with_those_that_they_override(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(*_: Any, **__: Any) -> Any:
        raise AssertionError("compared")

    class Meta(type):
        def __init__(cls, *_: Any) -> None:
            if "Enforce" not in cls.__name__:
                strict()

    enforcing = Meta("EnforceOverrides", (), {})
    checker: Any = types.SimpleNamespace(override=strict, overrides=strict, EnforceOverrides=enforcing)
    monkeypatch.setitem(sys.modules, "overrides", checker)
    lean_imports._skip_override_checks()

    class Mine(checker.EnforceOverrides):  # type: ignore[misc]
        one = checker.override(lambda _: 1)
        two = checker.overrides(check_signature=False)(lambda _: 2)

    assert (Mine().one(), Mine().two()) == (1, 2)


def test_another_library_of_that_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = types.SimpleNamespace(override=len)
    monkeypatch.setitem(sys.modules, "overrides", other)
    lean_imports._skip_override_checks()
    assert other.override is len


# in code without `from __future__`, which this file has
_AS_MEMPALACE_DOES = compile("exec(compile(path.read_text(), str(path), 'exec'), names)", "<test>", "exec", 0, True)


def test_fragments_come_from_the_cache_of_compiled_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "pack" / "part.py"
    path.parent.mkdir()
    for value in ("1", "20"):
        path.write_text(f"found = {value}\n")
        names: dict[str, Any] = {}
        with lean_imports.fragments_compiled_once("pack"):
            exec(_AS_MEMPALACE_DOES, {"path": path, "names": names})
        assert names["found"] == int(value)
    assert list(path.parent.glob("__pycache__/part.*.pyc"))
    assert builtins.compile.__module__ == "builtins"


def test_other_sources_are_compiled_as_ever() -> None:
    with lean_imports.fragments_compiled_once("pack"):
        names: dict[str, Any] = {}
        plain = compile("def one(a: nowhere): pass", "<text>", "exec", 0, True)
        with pytest.raises(NameError):  # without this module's `from __future__ import annotations`
            exec(plain, names)
        exec(compile("def one(a: nowhere): pass", "<text>", "exec"), names)  # with it
        assert eval(compile("1 + 1", "/pack/x.py", "eval")) == 2
        with pytest.raises(SyntaxError):
            compile("1 +", "/pack/x.py", "exec")


def test_the_environment_is_as_before_afterwards() -> None:
    code = (
        "import gc, os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from mempalace_broker.engine.lean_imports import lean_imports\n"
        "name = 'PYDANTIC_DISABLE_PLUGINS'; os.environ.pop(name, None)\n"
        "for before in (None, 'some'):\n"
        "    if before: os.environ[name] = before\n"
        "    with lean_imports(): assert os.environ[name] == '__all__' and not gc.isenabled()\n"
        "    assert os.environ.get(name) == before and gc.isenabled()\n"
    )
    root = Path(lean_imports.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, timeout=60)
