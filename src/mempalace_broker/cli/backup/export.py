"""Writes a snapshot out as files that need no mempalace: Markdown to read, JSON lines to process."""

from __future__ import annotations

import contextlib
import json
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from ...errors import StateRootError, file_hint
from . import chroma_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from .snapshots import Snapshot

_CHROMA = "palace/chroma.sqlite3"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_LONGEST = 80


class Form(StrEnum):
    """What is written."""

    JSONL = "jsonl"
    MARKDOWN = "markdown"


def export(snapshot: Snapshot, target: str, form: Form) -> dict[str, int]:
    """Write all drawers and facts into the new folder `target`; how many there are of each.

    Raises:
        StateRootError: the folder is there already, or can't be written. BadSnapshot: the snapshot can't be read.
    """
    try:
        os.mkdir(target, 0o700)
        with contextlib.ExitStack() as stack:
            out = _Files(target, stack)
            drawers = facts = 0
            for drawer in _drawers(snapshot):
                drawers += 1
                if form is Form.JSONL:
                    out.write("drawers.jsonl", json.dumps(drawer, ensure_ascii=False, default=str) + "\n")
                else:
                    _as_markdown(out, drawer)
            for fact in _facts(snapshot):
                facts += 1
                out.write(*_fact(fact, form))
    except OSError as exc:
        hint = file_hint(exc, "name another folder", otherwise="name a new folder")
        raise StateRootError(f"cannot export to {target}: {exc.strerror or exc}.", hint=hint) from exc
    return {"drawers": drawers, "facts": facts}


class _Files:
    """Text files below a folder; only the last one stays open, so that thousands of rooms need no descriptors."""

    def __init__(self, folder: str, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._name = ""
        self._file: TextIO
        self._stack = stack.enter_context(contextlib.ExitStack())

    def write(self, name: str, text: str) -> None:
        if name != self._name:
            self._stack.close()
            path = os.path.join(self._folder, name)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            opened = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed by the stack
            self._file = self._stack.enter_context(opened)
            self._name = name
        self._file.write(text)


def _drawers(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    if _CHROMA not in snapshot.files:
        return
    with snapshot.open_database(_CHROMA) as db:
        yield from (drawer._asdict() for drawer in chroma_rows.drawers(db))


def _facts(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    for name in snapshot.files:
        if name.endswith("knowledge_graph.sqlite3"):
            with snapshot.open_database(name) as db:
                yield from _rows(db, "triples")


def _rows(db: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
        found = db.execute(f"SELECT * FROM {table}")
        columns = [column[0] for column in found.description]
        yield from (dict(zip(columns, row, strict=True)) for row in found)


def _fact(fact: dict[str, Any], form: Form) -> tuple[str, str]:
    if form is Form.JSONL:
        return "facts.jsonl", json.dumps(fact, ensure_ascii=False, default=str) + "\n"
    words = " ".join(str(fact.get(name, "")) for name in ("subject", "predicate", "object"))
    ended = f" (until {fact['valid_to']})" if fact.get("valid_to") else ""
    return "facts.md", f"* {words}{ended}\n"


def _as_markdown(out: _Files, drawer: dict[str, Any]) -> None:
    """One file a room: COLLECTION/WING/ROOM.md, with "none" where there is no wing or room."""
    metadata = drawer["metadata"]
    wing, room = (_plain(metadata.get(name)) for name in ("wing", "room"))
    facts = "".join(f"* {key}: {value}\n" for key, value in sorted(metadata.items()) if value not in ("", None))
    out.write(f"{_plain(drawer['collection'])}/{wing}/{room}.md", f"## {drawer['id']}\n\n{facts}\n{drawer['text']}\n\n")


def _plain(name: object) -> str:
    """A name for a file: what a guest chose leads nowhere else."""
    return "".join(c if c in _PLAIN else "_" for c in str(name or "none"))[:_LONGEST]
