"""Findings about others at the palace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .findings import ERROR, INFO, OK, WARN, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts


def openers(facts: Facts) -> Iterator[Row]:
    """Other processes that have palace files open: the one thing that must not be."""
    engine = facts.engine_pid
    strangers = [opener for opener in facts.openers if opener.pid != engine]
    for opener in strangers:
        yield Row(
            ERROR,
            "foreign opener",
            f"pid {opener.pid} ({opener.command}) has {len(opener.files)} palace file(s) open beside the engine, "
            f"such as {opener.files[0]}",
            f"put mp-shim where its agent's config says mempalace-mcp, then end it: kill {opener.pid}",
        )
    if not strangers:
        mine = f"only the engine, pid {engine}" if facts.openers else "nobody"
        yield Row(OK, "palace files", f"open in: {mine} (of the processes that you may see)")


def lease(facts: Facts) -> Iterator[Row]:
    """Upstream's own write lock."""
    lease = facts.lease
    engine = facts.engine_pid
    if not lease.held:
        return
    if engine and lease.pid == engine:
        yield Row(OK, "mempalace's write lease", f"held by our engine, pid {engine}: stray writers are refused")
    else:
        yield Row(
            ERROR if facts.reply.answer is not None else WARN,
            "mempalace's write lease",
            f"held by pid {lease.pid or 'unknown'} ({lease.command or '?'}), which is not our engine",
            f"let it finish, or end it: kill {lease.pid}" if lease.pid else f"see who: lsof {lease.path}",
        )


def upstream(facts: Facts) -> Iterator[Row]:
    """Records of mempalace's hub and daemon."""
    for record in facts.upstream:
        same = not record.palace or record.palace == facts.identity.path
        if record.alive and same:
            yield Row(
                WARN,
                f"mempalace's own {record.kind}",
                f"pid {record.pid} ({record.command or '?'}) may serve this palace too ({record.path})",
                f"stop it: kill {record.pid}",
            )
        elif not record.alive:
            yield Row(
                INFO,
                f"mempalace's own {record.kind}",
                f"stale record of pid {record.pid} in {record.path}; plain mempalace-mcp sessions may stumble over it",
                f"rm {record.path}",
            )


def leftovers(facts: Facts) -> Iterator[Row]:
    """Indexes that mempalace set aside."""
    for name in facts.leftovers:
        yield Row(
            WARN,
            "set-aside index",
            f"{name} in {facts.identity.path}: mempalace set a vector index aside, after two processes wrote at once, "
            "or by 3.4.0's delete error; drawers written before may not be found by search",
            "stop all agents, `mempalace repair` (it rebuilds the index from the drawers), then remove it",
        )
