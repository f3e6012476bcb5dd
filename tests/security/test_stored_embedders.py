"""A guest writes into the database how texts are embedded: the engine builds, and so loads, nothing of that."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from tests.harness import World

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]

BUILDS = "sentence_transformers"  # the package that Chroma looks for, and says so in the log where it is missing


def plant(world: World) -> None:
    """Make every place in the database that names an embedding function name one that runs code of its model."""
    settings = {"model_name": f"{world.palace}/evil", "device": "cpu", "normalize_embeddings": False}
    evil = {"type": "known", "name": "sentence_transformer"}
    evil["config"] = {**settings, "kwargs": {"trust_remote_code": True}}  # type: ignore[assignment]

    def everywhere(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: evil if name == "embedding_function" else everywhere(part) for name, part in value.items()}
        return [everywhere(part) for part in value] if isinstance(value, list) else value

    with sqlite3.connect(world.palace / "chroma.sqlite3") as database:
        rows = database.execute("select id, config_json_str, schema_str from collections").fetchall()
        assert rows
        for id_, config, schema in rows:
            told = {**json.loads(config or "{}"), "embedding_function": evil}
            shape = json.dumps(everywhere(json.loads(schema))) if schema else None
            words = (json.dumps(told), shape, id_)
            database.execute("update collections set config_json_str = ?, schema_str = ? where id = ?", words)
    database.close()


def test_a_stored_embedding_function_loads_no_code(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits at the river")["success"]
    assert world.cli("stop").returncode == 0
    plant(world)
    assert "heron" in str(shim.call_tool("search", 60, query="heron"))
    assert shim.call_tool("add_drawer", wing="w", room="r", content="a stork came by in the evening")["success"]
    assert shim.call_tool("diary_write", agent_name="a", entry="a quiet day")["success"]
    assert shim.call_tool("reconnect")["success"]
    assert "stork" in str(shim.call_tool("search", query="stork"))
    assert BUILDS not in world.log()
