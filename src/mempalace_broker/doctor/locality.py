"""`doctor` on locality: which side of a kernel boundary this is, and which routes lead to the palace's broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .findings import error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..route.plan import Plan
    from .facts import Facts
    from .findings import Finding

_PAGE = "docs/topologies.md"


def kernel(facts: Facts) -> Iterator[Finding]:
    """Whether this kernel owns the palace's files, and why."""
    where = f" (in a container: {facts.container})" if facts.container else ""
    if facts.locality.foreign:
        yield info(
            "locality",
            f"other kernel{where}: {facts.locality.why}; the broker is reached by ssh, tcp or direct",
        )
    else:
        yield ok("locality", f"same kernel{where}: {facts.locality.why}")


def routes(facts: Facts) -> Iterator[Finding]:
    """Where another kernel owns the palace: the routes that are configured."""
    if not facts.locality.foreign:
        return
    if facts.plan is None:
        yield error("routes", facts.plan_problem, "correct it, see docs/settings.md")
        return
    yield from _bridges(facts.plan)
    yield from _bridge(facts)
    yield from _direct(facts.plan)


def _bridges(plan: Plan) -> Iterator[Finding]:
    if plan.ssh is not None:
        yield ok("route: ssh", f"{plan.ssh}, configuration {plan.ssh.config or 'of ssh itself'}")
    else:
        yield info(
            "route: ssh",
            "not configured",
            f"MEMPALACE_BROKER_SSH_HOST, or ssh_host in broker.toml; {_PAGE}",
        )
    if plan.tcp:
        yield ok("route: tcp", ", ".join(map(str, plan.tcp)))
    else:
        yield info("route: tcp", "the record names no TCP address", f"set tcp on the palace's machine; {_PAGE}")


def _bridge(facts: Facts) -> Iterator[Finding]:
    said = facts.bridge
    if not said:
        return
    if said.get("error"):
        yield error("bridge", str(said["error"]), str(said.get("hint") or f"see {_PAGE}"))
        return
    how = f"{said.get('mode')} over {said.get('over')}" if said.get("mode") else str(said.get("state"))
    yield ok("bridge", f"pid {said.get('pid')}, {how}, {said.get('users')} users")


def _direct(plan: Plan) -> Iterator[Finding]:
    if not plan.direct:
        yield info("route: direct", plan.why_not_direct)
        return
    yield warn(
        "route: direct",
        "a broker here may open the palace itself, if its lease shows that no other broker has it",
        f"configure a bridge (ssh or tcp); {_PAGE}",
    )
