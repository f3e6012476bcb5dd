"""docs/json.md names the fields of every document that a command prints; those that need no engine are printed here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from mempalace_broker.cli import main
from tests.unit.test_docs import DOCS, commands, rows

FIELDS = re.compile(r"`([a-z_]+)`")


def documented() -> dict[str, str]:
    """Command -> the cell with its fields."""
    table = [row for row in rows((DOCS / "json.md").read_text(encoding="utf-8")) if len(row) == 2]
    names = commands()
    named = [(re.findall(r"`([a-z -]+)`", first), cell) for first, cell in table if " of " not in first]
    return {name: cell for found, cell in named for name in found if name in names}


def test_every_command_with_json_is_there() -> None:
    with_json = {
        name
        for name, command in commands().items()
        if not isinstance(command, click.Group) and any("--json" in param.opts for param in command.params)
    }
    assert with_json == set(documented())


@pytest.fixture
def palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "home" / "palace"
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEMPALACE_BROKER_PRIVATE", str(tmp_path / "private"))
    monkeypatch.chdir(tmp_path)
    return str(folder)


@pytest.mark.parametrize(
    "words",
    [
        ["stop"],
        ["doctor"],
        ["bugreport"],
        ["backup", "list"],
        ["model", "status"],
        ["take-over"],
        ["token"],
        ["setup", "--dry-run"],
    ],
    ids=" ".join,
)
def test_the_fields_are_those_that_are_printed(
    words: list[str], palace: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mempalace_broker.cli.setup._words", lambda _context: ["/bin/mp-shim"])
    main([*words, "--json", "--palace", palace])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    cell = documented()[" ".join(word for word in words if not word.startswith("-"))]
    always = set(FIELDS.findall(cell.split(";")[0]))
    assert always <= set(said)
    assert set(said) <= set(FIELDS.findall(cell))
