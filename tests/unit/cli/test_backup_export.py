"""A snapshot is written out as text, whatever names its drawers have."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from mempalace_broker.cli.backup.copying import digest
from mempalace_broker.cli.backup.export import Form, export
from mempalace_broker.cli.backup.snapshots import BadSnapshot, Entry, Snapshot, write_manifest
from mempalace_broker.cli.backup.tryout import _samples
from mempalace_broker.errors import StateRootError

CHROMA = """
    CREATE TABLE collections (id TEXT, name TEXT);
    CREATE TABLE segments (id TEXT, collection TEXT, scope TEXT);
    CREATE TABLE max_seq_id (segment_id TEXT, seq_id INTEGER);
    CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY, operation INTEGER, topic TEXT, id TEXT, metadata TEXT);
    CREATE TABLE embeddings (id INTEGER, segment_id TEXT, embedding_id TEXT);
    CREATE TABLE embedding_metadata
        (id INTEGER, key TEXT, string_value TEXT, int_value INTEGER, float_value REAL, bool_value INTEGER);
    INSERT INTO collections VALUES ('c', 'mempalace_drawers');
    INSERT INTO segments VALUES ('s', 'c', 'METADATA');
    INSERT INTO embeddings VALUES (1, 's', 'drawer_1'), (2, 's', 'drawer_2');
    INSERT INTO embedding_metadata VALUES
        (1, 'chroma:document', 'the heron waits', NULL, NULL, NULL), (1, 'wing', 'w', NULL, NULL, NULL),
        (1, 'room', 'r', NULL, NULL, NULL), (1, 'chunk_index', NULL, 3, NULL, NULL),
        (2, 'chroma:document', 'evil', NULL, NULL, NULL), (2, 'wing', '../../etc', NULL, NULL, NULL);
"""
QUEUED = """
    INSERT INTO max_seq_id VALUES ('s', 2);
    INSERT INTO embeddings_queue VALUES
        (1, 0, 'persistent://t/d/c', 'drawer_1', '{"chroma:document": "applied long ago"}'),
        (3, 0, 'persistent://t/d/c', 'drawer_3', '{"chroma:document": "the stork came", "wing": "w"}'),
        (4, 2, 'persistent://t/d/c', 'drawer_1', '{"chroma:document": "the heron left", "chunk_index": null}'),
        (5, 3, 'persistent://t/d/c', 'drawer_2', NULL),
        (6, 1, 'persistent://t/d/c', 'drawer_9', '{"chroma:document": "an update of nothing"}'),
        (7, 0, 'persistent://t/d/c', 'drawer_3', '{"chroma:document": "added twice"}'),
        (8, 0, 'persistent://t/d/another', 'drawer_4', '{"chroma:document": "of no collection"}');
"""
HOSTILE = f"""
    INSERT INTO max_seq_id VALUES ('s', 'x');
    INSERT INTO collections VALUES ('d', 'old'), ('e', 'older');
    INSERT INTO segments VALUES ('t', 'd', 'METADATA'), ('u', 'e', 'METADATA');
    INSERT INTO max_seq_id VALUES ('t', x'0000000000000003'), ('u', x'{"ff" * 9}');
    INSERT INTO embedding_metadata VALUES (1, x'00', x'01', NULL, NULL, NULL);
    INSERT INTO embedding_metadata VALUES (1, CAST(x'ff' AS TEXT), CAST(x'ff41' AS TEXT), NULL, NULL, NULL);
    INSERT INTO embeddings_queue VALUES
        (3, 0, 'persistent://t/d/d', 'drawer_3', '{{"chroma:document": "applied"}}'),
        (4, 0, 'persistent://t/d/d', 'drawer_4', '{{"chroma:document": {"[" * 100_000}'),
        (5, 0, 'persistent://t/d/d', 'drawer_5', CAST(x'ff' AS TEXT)),
        (6, 0, 'persistent://t/d/d', 'drawer_6', 6),
        (7, 'x', 'persistent://t/d/d', x'07', '{{"chroma:document": "a heron again"}}');
"""
ENDLESS = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
GRAPH = """
    CREATE TABLE triples (subject TEXT, predicate TEXT, object TEXT, valid_to TEXT);
    INSERT INTO triples VALUES ('heron', 'eats', 'fish', NULL), ('heron', 'sleeps', 'late', '2026-01-01');
"""


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return snapshot_of(tmp_path, CHROMA)


def snapshot_of(folder: Path, chroma: str, *, graph: str = GRAPH, check: bool = True) -> Snapshot:
    path = folder / "2026-11-27T09-36-01Z"
    files = {}
    for name, script in (("palace/chroma.sqlite3", chroma), ("graph/knowledge_graph.sqlite3", graph)):
        (path / name).parent.mkdir(parents=True)
        db = sqlite3.connect(path / name)
        db.executescript(script)
        db.close()
        files[name] = Entry((path / name).stat().st_size, digest(str(path / name)))
    write_manifest(str(path), {}, files)
    found = Snapshot(str(path))
    if check:
        found.check()
    return found


def test_json_lines_hold_everything(snapshot: Snapshot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(snapshot, str(out), Form.JSONL) == {"drawers": 2, "facts": 2}
    one, _ = map(json.loads, (out / "drawers.jsonl").read_text().splitlines())
    assert (one["id"], one["text"]) == ("drawer_1", "the heron waits")
    assert one["metadata"] == {"wing": "w", "room": "r", "chunk_index": 3}
    assert json.loads((out / "facts.jsonl").read_text().splitlines()[0])["object"] == "fish"


def test_markdown_has_a_file_for_each_room_and_no_name_leads_out(snapshot: Snapshot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(snapshot, str(out), Form.MARKDOWN)
    assert "## drawer_1" in (out / "mempalace_drawers" / "w" / "r.md").read_text()
    assert "the heron waits" in (out / "mempalace_drawers" / "w" / "r.md").read_text()
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.md"))
    assert names == ["facts.md", "mempalace_drawers/______etc/none.md", "mempalace_drawers/w/r.md"]
    assert "* heron sleeps late (until 2026-01-01)" in (out / "facts.md").read_text()


@pytest.mark.parametrize("form", Form)
def test_rows_that_no_chroma_wrote(tmp_path: Path, form: Form) -> None:
    strange = snapshot_of(tmp_path, CHROMA + HOSTILE)
    assert export(strange, str(tmp_path / "out"), form) == {"drawers": 6, "facts": 2}
    assert "the heron waits" in "".join(path.read_text() for path in (tmp_path / "out").rglob("*.*"))
    assert dict(_samples(strange)[1])["drawer_1"] == "the heron waits"


def test_tables_that_no_chroma_has(tmp_path: Path) -> None:
    strange = snapshot_of(tmp_path, "CREATE TABLE collections (id TEXT);")
    for read in (lambda: export(strange, str(tmp_path / "out"), Form.JSONL), lambda: _samples(strange)):
        with pytest.raises(BadSnapshot, match=r"palace/chroma\.sqlite3 is damaged: no such"):
            read()


@pytest.mark.parametrize("name", ["collections", "embeddings", "triples"])
def test_a_view_that_never_ends_is_not_read(tmp_path: Path, name: str) -> None:
    forged = f"ALTER TABLE {name} RENAME TO old; CREATE VIEW {name} AS {ENDLESS};"
    chroma, graph = (CHROMA, GRAPH + forged) if name == "triples" else (CHROMA + forged, GRAPH)
    strange = snapshot_of(tmp_path, chroma, graph=graph, check=False)
    for read in (strange.check, lambda: export(strange, str(tmp_path / "out"), Form.JSONL)):
        with pytest.raises(BadSnapshot, match=f"{name} is a view instead of a table"):
            read()


def test_views_of_the_users_own_do_no_harm(tmp_path: Path) -> None:
    mine = snapshot_of(tmp_path, CHROMA + "CREATE VIEW mine AS SELECT * FROM embeddings;")
    assert export(mine, str(tmp_path / "out"), Form.JSONL) == {"drawers": 2, "facts": 2}


def test_a_folder_that_is_there_is_left_alone(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(StateRootError, match="cannot export"):
        export(snapshot, str(tmp_path), Form.JSONL)


def test_what_chroma_has_queued_and_not_applied_counts_as_it_will_when_the_snapshot_is_opened(tmp_path: Path) -> None:
    behind = snapshot_of(tmp_path, CHROMA + QUEUED)
    out = tmp_path / "out"
    assert export(behind, str(out), Form.JSONL) == {"drawers": 2, "facts": 2}
    written = [json.loads(line) for line in (out / "drawers.jsonl").read_text().splitlines()]
    assert [(one["id"], one["text"], one["metadata"]) for one in written] == [
        ("drawer_1", "the heron left", {"wing": "w", "room": "r"}),
        ("drawer_3", "the stork came", {"wing": "w"}),
    ]
    count, samples = _samples(behind)
    assert (count, dict(samples)) == (2, {"drawer_1": "the heron left", "drawer_3": "the stork came"})
