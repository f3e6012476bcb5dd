"""Findings about other programs at the palace, and what they left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import integrations
from .findings import Finding, Severity, error, info, ok, warn
from .upstream_clients import knows_routing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts
    from .open_files import OpenFile


def open_files(facts: Facts) -> Iterator[Finding]:
    """Other processes that have palace files open, which must not be while the engine has."""
    engine = facts.engine_pid
    strangers = [opener for opener in facts.open_files if opener.pid != engine]
    for opener in strangers:
        yield _opener(facts, opener)
    if not strangers:
        owner = f"only the engine, pid {engine}" if facts.open_files else "no process"
        yield ok("palace files", f"open in: {owner} (of the processes that you may see)")


def _opener(facts: Facts, opener: OpenFile) -> Finding:
    who = f"pid {opener.pid} ({opener.command})"
    command = facts.engine_lock.pid  # 0 where its note names nobody, and all processes come from pid 1, or even 0
    if facts.lent_to and command > 1 and command in (opener.pid, *(pid for pid, _ in opener.parents)):
        return info("palace files", f"open in {who}, of the command that has the palace for itself")
    if _is_parked(facts) and facts.upstream_lock.held and facts.upstream_lock.pid == opener.pid:
        return info(
            "palace files",
            f"open in {who}, one of mempalace's own commands or servers; our engine is parked and waits for its end",
        )
    since = f", running since {_clock(opener.since)}" if opener.since else ""
    by = f", started by pid {opener.parents[0][0]} ({opener.parents[0][1]})" if opener.parents else ""
    what, hint = integrations.about(opener)
    return error(
        "foreign opener",
        f"{who}{since}{by}, has {len(opener.files)} palace file(s) open beside the engine, such as {opener.files[0]}"
        + (f": {what}" if what else ""),
        f"{hint}, then end it: kill {opener.pid}",
    )


def in_process(facts: Facts) -> Iterator[Finding]:
    """Integrations that open the palace in processes of their own, whatever an agent's MCP configuration says."""
    for found in facts.integrations:
        yield warn(
            "integration",
            f"{found.name} is set up in {found.path}: {found.what}; no configuration leads it to the broker",
            found.hint,
        )


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def upstream_lock(facts: Facts) -> Iterator[Finding]:
    """The upstream write lock."""
    lock = facts.upstream_lock
    engine = facts.engine_pid
    if not lock.held:
        return
    if engine and lock.pid == engine:
        yield ok("upstream write lock", f"held by our engine, pid {engine}: stray writers are refused")
    elif _is_parked(facts) or facts.lent_to:
        away = "lent to a command" if facts.lent_to else "parked"
        yield info(
            "upstream write lock",
            f"held by pid {lock.pid or 'unknown'} ({lock.command or '?'}) while our engine is {away}; calls wait",
            "should it stay there, end it" + (f": kill {lock.pid}" if lock.pid else ""),
        )
    else:
        yield Finding(
            Severity.ERROR if facts.reply.answer is not None else Severity.WARN,
            "upstream write lock",
            f"held by pid {lock.pid or 'unknown'} ({lock.command or '?'}), which is not our engine",
            f"let it finish, or end it: kill {lock.pid}" if lock.pid else f"see who: lsof {lock.path}",
        )


def _is_parked(facts: Facts) -> bool:
    return facts.status.get("engine", {}).get("state") in ("parked", "unparking")


def hooks(facts: Facts) -> Iterator[Finding]:
    """Whether mempalace's hooks and its own commands can save."""
    running = facts.status.get("settings") or facts.settings
    park_s = (running.get("park_s") or {}).get("value")
    answers = (running.get("http") or {}).get("value") and knows_routing(facts.engine.version)
    if answers and facts.hook_routing.leads_here:
        yield ok("hooks", f"mempalace's hooks save through the broker (write_routing in {facts.hook_routing.path})")
        return
    hint = ""
    if answers:
        hint = (
            f'put "write_routing": {{"hooks": "prefer"}} into {facts.hook_routing.path}: then hooks save through the '
            "broker, or by themselves when none runs"
        )
    if park_s:
        yield (info if hint else ok)(
            "hooks",
            f"mempalace's hooks and its own commands work on the palace after {park_s} s without a call; "
            "while agents are calling they are refused, and a refused hook says nothing",
            hint,
        )
    elif park_s == 0:
        yield info(
            "hooks",
            "mempalace's hooks and its own commands are refused while a broker runs (park_s = 0); "
            "a refused hook says nothing",
            hint or "set park_s = 1 in config.toml, then `mempalace-broker restart`",
        )


def proxy(facts: Facts) -> Iterator[Finding]:
    """Warn of a proxy that would get the requests of mempalace's own servers and commands to the broker."""
    if facts.proxy:
        yield warn(
            "http_proxy",
            "mempalace-mcp and mempalace's commands send their requests to the broker through that proxy, and open the "
            "palace themselves if they get no answer",
            "add 127.0.0.1 to no_proxy, for every agent alike",
        )


def upstream_processes(facts: Facts) -> Iterator[Finding]:
    """Records of mempalace's hub and daemon."""
    for record in facts.upstream_processes:
        same = not record.palace or record.palace == facts.identity.path
        if record.alive and same:
            yield warn(
                f"mempalace's own {record.kind}",
                f"pid {record.pid} ({record.command or '?'}) may serve this palace too ({record.path})",
                f"stop it: kill {record.pid}",
            )
        elif not record.alive:
            yield info(
                f"mempalace's own {record.kind}",
                f"stale record of pid {record.pid} in {record.path}; plain mempalace-mcp sessions may fail on it",
                f"rm {record.path}",
            )


def leftovers(facts: Facts) -> Iterator[Finding]:
    """Indexes that mempalace set aside."""
    for name in facts.leftovers:
        yield warn(
            "set-aside index",
            f"{name} in {facts.identity.path}: mempalace set a vector index aside, after two processes wrote at once "
            "or because of the delete error of 3.4.0; search may not find drawers written before",
            "stop all agents, run `mempalace repair` (it rebuilds the index from the drawers), then remove it",
        )
