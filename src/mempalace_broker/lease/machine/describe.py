"""Leases in words and as facts: for `status`, `doctor`, and the broker that was refused."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from ...protocol.text import printable
from .acquire import Acquired
from .lease import LeaseState, NodeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lease import Listing
    from .record import LeaseRecord

_WHERE = {NodeKind.HOST: "the palace's own machine", NodeKind.FOREIGN: "a container or virtual machine"}
_BOOT = 8  # characters of a boot id that people see


def describe_leases(listing: Listing, leases: Sequence[LeaseRecord]) -> dict[str, Any]:
    """All leases of a palace: the highest, the open ones below it, and how many requests for a handover there are.

    Returns:
        {"epoch": 0, ...} where there is no lease.
    """
    if not leases:
        return {"epoch": 0, "state": None, "kind": None, "since": None, "handover_requests": 0, "lower": []}
    *lower, top = sorted(leases)
    return {
        **_facts(top, listing),
        "handover_requests": len(listing.requested),
        "lower": [_facts(lease, listing) for lease in lower if not lease.is_resolved(listing)],
    }


def _facts(lease: LeaseRecord, listing: Listing) -> dict[str, Any]:
    holder = lease.holder
    return {
        "epoch": lease.epoch,
        "state": lease.state,
        "kind": holder.kind,
        "host": printable(holder.host),
        "boot": printable(holder.boot[:_BOOT]),
        "pid": holder.pid,
        "since": holder.since,
        "sequence": lease.sequence,
        "busy": lease.busy,
        "open": not lease.is_resolved(listing),
    }


def describe_holder(lease: LeaseRecord) -> str:
    """Who holds the lease, in words."""
    holder = lease.holder
    if not holder.boot and not holder.host:
        return f"an unknown broker (epoch {lease.epoch})"
    since = datetime.datetime.fromtimestamp(holder.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    host, boot = printable(holder.host) or "unnamed", printable(holder.boot[:_BOOT]) or "unknown"
    return (
        f"a broker on {_WHERE[holder.kind]} ({host}, boot {boot}, pid {holder.pid}, since {since} by its clock, "
        f"epoch {lease.epoch}, {lease.state})"
    )


def describe_refusal(outcome: Acquired, lease: LeaseRecord | None, palace: str, silence_s: float) -> tuple[str, str]:
    """Why a broker did not get the palace, and the hint. `lease`: the one in the way."""
    if outcome is Acquired.HANDOVER:
        return f"the host wants {palace} and asked for a handover.", "use the host's broker: ssh or tcp"
    if outcome is Acquired.EXHAUSTED:
        return (
            f"the leases of {palace} bear the highest number that there is, which no broker gave them.",
            "`mempalace-broker take-over --yes` removes those that nobody holds",
        )
    if outcome is Acquired.CONTENDED or lease is None:
        return f"other brokers took {palace} first, again and again.", "try again, or see `mempalace-broker doctor`"
    if outcome is Acquired.HELD:
        return _held(lease, palace)
    why = f"{palace} may still be held by {describe_holder(lease)}: silent for {silence_s:g} s and more, "
    if lease.state is LeaseState.UNREADABLE:
        why += "with a lease that can't be read."
    else:
        why += "and stopped in the middle of a call, which it may continue when it wakes."
    assert outcome is Acquired.IN_DOUBT, outcome
    return why, (
        "resume that container or machine, or stop it in an orderly way: its broker then releases the palace. Only if "
        "it is gone for certain: `mempalace-broker take-over --yes`"
    )


def _held(lease: LeaseRecord, palace: str) -> tuple[str, str]:
    why = f"{palace} is held by {describe_holder(lease)}, which is alive."
    if lease.state is LeaseState.ACQUIRING:
        return why, "it is just starting: try again in a few seconds"
    if lease.holder.kind is NodeKind.HOST:
        return why, "reach that broker by ssh or tcp, see docs/topologies.md"
    return why, "use it from there, or stop it there: `mempalace-broker stop`"
