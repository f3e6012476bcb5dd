"""The engine runs in the user's interpreter: nothing in it may need more than Python 3.9."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mempalace_broker

ROOT = Path(mempalace_broker.__file__).parent
FILES = sorted((ROOT / "engine").rglob("*.py")) + [
    ROOT / name
    for name in (
        *("__init__.py", "errors.py", "protocol/__init__.py"),
        *("protocol/engine_frames.py", "protocol/journal.py", "protocol/tools.py", "protocol/write_lock.py"),
        *("protocol/palace.py", "system/__init__.py", "system/darwin.py", "system/hangup.py", "system/kernel.py"),
        *("system/file_trust.py", "system/shared_files.py"),
    )
]


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
