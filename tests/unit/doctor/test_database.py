"""What doctor says of a palace in a database, and of two brokers that share one."""

from __future__ import annotations

import copy
import shlex
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.doctor import database
from mempalace_broker.doctor.database import compare, look_at_database, storage
from mempalace_broker.route.ask import BrokerReply
from mempalace_broker.route.machine.election import CONNECT_OK

STATUS: dict[str, Any] = {
    "engine": {
        "backend": "pgvector",
        "version": "3.11.0",
        "embedder": "minilm",
        "graph": "/h/.mempalace/knowledge_graph.sqlite3",
        "storage": {"where": "db:5432/palace", "tables": "mempalace_team_0123456789ab"},
    }
}


def reply(where: str) -> BrokerReply:
    status = copy.deepcopy(STATUS)
    status["engine"]["storage"]["where"] = where
    return BrokerReply(CONNECT_OK, "/s", status)


def found(**changes: Any) -> list[tuple[str, str]]:
    """Severities and texts, where the other broker differs in this."""
    other = copy.deepcopy(STATUS)
    other["engine"].update(changes)
    return [(row.severity.value, row.detail) for row in compare(STATUS, other)]


def test_two_brokers_with_one_memory() -> None:
    assert [severity for severity, _ in found()] == ["ok", "info"]


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"storage": {"where": "db:5432/palace", "tables": "mempalace_00"}}, "error", "two memories in one database"),
        ({"storage": {"where": "10.0.0.7:5432/palace", "tables": "mempalace_team_0123456789ab"}}, "warn", "10.0.0.7"),
        ({"embedder": "bge-m3"}, "error", "bge-m3 there"),
        ({"version": "3.10.0"}, "warn", "3.10.0 there"),
        ({"storage": None, "backend": "chroma"}, "error", "the other machine has its drawers in files"),
    ],
)
def test_two_brokers_that_differ(changes: dict[str, Any], severity: str, words: str) -> None:
    assert any(said == severity and words in text for said, text in found(**changes))


def test_what_is_no_status_is_said_to_be_none() -> None:
    (row,) = compare(STATUS, {})
    assert row.severity.value == "error"
    assert "not what `mempalace-broker status --json` prints" in row.detail


@pytest.mark.parametrize("tables", ["mempalace_0123", "a'; rm -rf ~; '"])
def test_no_name_of_tables_leaves_the_argument_of_the_hint(tables: str) -> None:
    engine = {"backend": "pgvector", "storage": {"where": "db:5432/x", "tables": tables}}
    facts: Any = SimpleNamespace(status={"engine": engine}, database="")
    *_, finding = storage(facts)
    assert shlex.split(finding.hint) == ["pg_dump", f"--table={tables}_*"]


@pytest.mark.parametrize("answer", [b"N", b"S", b""])
def test_a_database_is_asked_one_question(answer: bytes) -> None:
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(8))
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        said = look_at_database(reply(f"127.0.0.1:{listener.getsockname()[1]}/x"))
        thread.join()
    assert asked == [bytes.fromhex("0000000804d2162f")]
    assert bool(said) is not bool(answer)


def test_a_database_that_says_nothing_or_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "no answer" in look_at_database(reply(f"127.0.0.1:{port}/x"))
    assert "refused" in look_at_database(reply(f"127.0.0.1:{port}/x"))
    assert look_at_database(reply("nonsense"))


def test_other_stores_are_not_asked() -> None:
    assert look_at_database(BrokerReply(CONNECT_OK, "/s", {"engine": {"backend": "chroma", "storage": None}})) == ""
    assert look_at_database(BrokerReply(CONNECT_OK, "/s", None)) == ""
    assert look_at_database(reply("/var/run/postgresql:5432/x")) == ""
    assert look_at_database(reply("[local]:5432/x")) == ""
    assert look_at_database(reply("127.0.0.1,::1:1,1/x")) == ""
