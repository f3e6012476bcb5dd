"""The engine runs in the user's interpreter: nothing in it may need more than Python 3.9."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import grimp
import pytest

import mempalace_broker

ROOT = Path(mempalace_broker.__file__).parent
_GRAPH = grimp.build_graph("mempalace_broker", exclude_type_checking_imports=True, cache_dir=None)
_IMPORTED = _GRAPH.find_upstream_modules("mempalace_broker.engine", as_package=True)
FILES = sorted(
    {*(ROOT / "engine").rglob("*.py"), *(ROOT / name / "__init__.py" for name in ("", "protocol", "system"))}.union(
        ROOT.parent.joinpath(*module.split(".")).with_suffix(".py") for module in _IMPORTED
    )
)


def test_what_the_engine_imports_is_linted_for_it() -> None:
    settings = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    linted = settings["tool"]["ruff"]["per-file-target-version"]
    needed = {f"src/{module.replace('.', '/')}.py" for module in _IMPORTED}
    assert needed == {path for path in linted if "*" not in path}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_parses_as_python_39_and_evaluates_no_new_annotations(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    annotated = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AnnAssign))]
    if annotated:
        assert any(node.module == "__future__" for node in imports)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Match)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not [c for c in calls if c.func.id == "zip" and any(k.arg == "strict" for k in c.keywords)]  # type: ignore[attr-defined]


def test_only_the_adapter_imports_mempalace() -> None:
    for path in FILES:
        if path.name != "adapter.py":
            text = path.read_text(encoding="utf-8")
            assert "import mempalace\n" not in text
            assert "from mempalace." not in text
