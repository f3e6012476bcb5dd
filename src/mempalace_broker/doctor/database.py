"""Findings about a palace whose drawers are in a database, and about two brokers that share one."""

from __future__ import annotations

import shlex
import socket
from typing import TYPE_CHECKING, Any

from .findings import error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..route.ask import BrokerReply
    from .facts import Facts
    from .findings import Finding

PGVECTOR = "pgvector"
_ANSWER_S = 3.0
_SOCKETS = ("/", "[local]")  # how an address without TCP begins
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # a server answers anybody with one letter, and logs nothing
_SAME_TABLES = "give both machines the same MEMPALACE_PGVECTOR_SHARED_NAMESPACE, under env in config.toml"


def look_at_database(reply: BrokerReply) -> str:
    """Return why the engine's PostgreSQL does not answer; "" if it does, or there is none.

    Needs neither user nor password: it only asks whether the server speaks TLS.
    """
    engine = (reply.answer or {}).get("engine") or {}
    where = str((engine.get("storage") or {}).get("where") or "")
    if engine.get("backend") != PGVECTOR or where.startswith(_SOCKETS) or "," in where:  # a list has standby servers
        return ""
    host, _, port = where.partition("/")[0].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S) as sock:
            sock.sendall(_SSL_REQUEST)
            return "" if sock.recv(1) in (b"S", b"N") else "it closes the connection"
    except TimeoutError:
        return f"no answer within {_ANSWER_S:g} s"
    except (OSError, ValueError) as exc:
        return getattr(exc, "strerror", None) or str(exc)


def storage(facts: Facts) -> Iterator[Finding]:
    """Report where the drawers are, if not in Chroma."""
    engine = facts.status.get("engine") or {}
    found = engine.get("storage") or {}
    if not found:
        return
    detail = f"{engine.get('backend')} at {found.get('where')}"
    if facts.database:
        yield error(
            "storage", f"{detail}: {facts.database}", "start the database, or correct its address in config.toml"
        )
    else:
        yield ok("storage", f"{detail}, embedded with {engine.get('embedder') or 'an unknown model'}")
    if engine.get("backend") == PGVECTOR:
        tables = found.get("tables")  # whichever broker answered has named them
        yield info(
            "storage",
            f"tables {tables}_*: `backup` does not hold them, back them up with the database's own tools",
            f"pg_dump --table={shlex.quote(f'{tables}_*')}",
        )


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge by their answers to broker/status whether two brokers have one memory.

    Args:
        one: ours. other: what `mempalace-broker status --json` printed on the other machine.
    """
    what = "other broker"
    if not other.keys() & {"running", "engine"}:
        yield error(what, "that is not what `mempalace-broker status --json` prints", "run that on the other machine")
        return
    ours, theirs = one.get("engine") or {}, other.get("engine") or {}
    if not ours.get("storage") or not theirs.get("storage"):
        side = "this machine" if not ours.get("storage") else "the other machine"
        yield error(
            what,
            f"{side} has its drawers in files of its own, or no engine yet: two memories",
            "send a call there, and see docs/scale.md",
        )
        return
    mine, its = ours["storage"], theirs["storage"]
    if (ours.get("backend"), mine.get("where")) != (theirs.get("backend"), its.get("where")):
        detail = (
            f"{ours.get('backend')} at {mine.get('where')} here, {theirs.get('backend')} at {its.get('where')} there"
        )
        yield warn(what, f"{detail}: one database only if these are two names of it", "use the same name on both")
    if mine.get("tables") != its.get("tables"):
        detail = f"tables {mine.get('tables')}_* here, {its.get('tables')}_* there: two memories in one database"
        yield error(what, detail, _SAME_TABLES)
    else:
        yield ok(what, f"both have tables {mine.get('tables')}_*")
    yield from _models(what, ours, theirs)
    yield info(
        what,
        f"each has its own knowledge graph ({ours.get('graph')} here, {theirs.get('graph')} there), tunnels and events",
        "to share the graph as well, use one broker and reach it by ssh://, see docs/scale.md",
    )


def _models(what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Finding]:
    if ours.get("embedder") != theirs.get("embedder"):
        yield error(
            what,
            f"{ours.get('embedder')} embeds here, {theirs.get('embedder')} there: neither finds what the other stored",
            "set the same embedding model on both, before more is stored",
        )
    if ours.get("version") != theirs.get("version"):
        yield warn(
            what,
            f"mempalace {ours.get('version')} here, {theirs.get('version')} there: ids of drawers may differ",
            "install the same version on both",
        )
