"""mempalace's record of a hub, as its clients from 3.8 on read it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker.http.machine.hub_record import encode, is_hub, key_of, mended, pid_in

DATA = Path(__file__).resolve().parents[4] / "data"


def tools(version: str) -> list[Any]:
    told: list[Any] = json.loads((DATA / f"tools-{version}.json").read_text())
    return told


def test_the_newest_can_all_that_its_clients_ask() -> None:
    record = json.loads(encode(palace="/p", pid=7, port=21, tools=tools("3.11.0"), fingerprint="f"))
    assert record == {
        "pid": 7,
        "host": "127.0.0.1",
        "port": 21,
        "scheme": "http",
        "read_only": False,
        "capabilities": ["mine_include_ignored", "mine_include_subagents", "search_cli_compatible"],
        "search_config_fingerprint": "f",
        "palace_path": "/p",
    }


def test_an_engine_that_can_less_says_less() -> None:
    older = [{"name": "mempalace_mine", "inputSchema": {"properties": {"source": {}}}}, {"name": "mempalace_search"}, 3]
    record = json.loads(encode(palace="/p", pid=7, port=21, tools=older, fingerprint=None))
    assert record["capabilities"] == []
    assert record["search_config_fingerprint"] is None


def test_an_engine_that_can_not_mine_is_no_hub() -> None:
    assert is_hub(tools("3.11.0"))
    assert not is_hub(tools("3.4.0"))
    assert not is_hub(None)


def test_the_folders_name() -> None:
    assert key_of("/home/me/päläce") == hashlib.sha256("/home/me/päläce".encode()).hexdigest()[:24]


@pytest.mark.parametrize(
    ("data", "pid"), [(None, 0), (b"", 0), (b'{"pid": 12}', 12), (b'{"pid": -1}', 0), (b'{"pid": "1"}', 0), (b"[", 0)]
)
def test_a_record_that_anybody_may_have_written(data: bytes | None, pid: int) -> None:
    assert pid_in(data) == pid


def call(name: str, **arguments: object) -> bytes:
    return json.dumps({"id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}).encode()


def test_a_default_that_was_sent_as_null() -> None:
    body = json.loads(mended(call("mempalace_mine", source="/s", mode=None, limit=0)))
    assert body["params"]["arguments"] == {"source": "/s", "limit": 0}


@pytest.mark.parametrize(
    "line",
    [
        call("mempalace_mine", source="/s", mode="convos"),
        call("mempalace_mine", source="/s"),
        call("mempalace_search", query='"mempalace_mine"', mode=None),
        b'{"params": {"name": "mempalace_mine", "arguments": 3}}',
        b'["mempalace_mine"]',
        b'{"mempalace_mine"',
    ],
)
def test_all_else_stays_as_it_is(line: bytes) -> None:
    assert mended(line) == line
