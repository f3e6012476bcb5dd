"""Claims in words and as facts: for `status`, `doctor`, and the one who is refused."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from .lease import ASKED, CLAIMING, CROWDED, FOREIGN, HELD, HOST, IN_DOUBT, MISSING, RELEASED, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lease import Listing
    from .record import Claim

_WHERE = {HOST: "the palace's own machine", FOREIGN: "a container or virtual machine"}
_BOOT = 8


def is_resolved(claim: Claim, listing: Listing) -> bool:
    """Whether nothing of that claim can write any more, as far as names and records tell."""
    if claim.state in (RELEASED, MISSING):
        return True
    return (claim.generation, claim.sequence) in listing.gone


def facts_of(claim: Claim, listing: Listing) -> dict[str, Any]:
    """One claim, as status and doctor show it."""
    writer = claim.writer
    return {
        "generation": claim.generation,
        "state": claim.state,
        "kind": writer.kind,
        "host": writer.host,
        "boot": writer.boot[:_BOOT],
        "pid": writer.pid,
        "since": writer.since,
        "sequence": claim.sequence,
        "busy": claim.busy,
        "open": not is_resolved(claim, listing),
    }


def describe(listing: Listing, claims: Sequence[Claim]) -> dict[str, Any]:
    """All claims of a palace: the highest, those below it, who is asked for. {"generation": 0} where there is none."""
    if not claims:
        return {"generation": 0, "state": None, "kind": None, "since": None, "asks": 0, "lower": []}
    *lower, top = sorted(claims)
    return {
        **facts_of(top, listing),
        "asks": len(listing.asks),
        "lower": [facts_of(claim, listing) for claim in lower if not is_resolved(claim, listing)],
    }


def who(claim: Claim) -> str:
    """The holder in words."""
    writer = claim.writer
    if not writer.boot and not writer.host:
        return f"generation {claim.generation}, which says nothing of its writer"
    since = datetime.datetime.fromtimestamp(writer.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    where = _WHERE.get(writer.kind, writer.kind)
    return (
        f"a broker on {where} ({writer.host or 'unnamed'}, boot {writer.boot[:_BOOT] or 'unknown'}, pid {writer.pid}, "
        f"since {since} by its clock, generation {claim.generation}, {claim.state})"
    )


def refusal(verdict: str, claim: Claim | None, palace: str, silence_s: float) -> tuple[str, str]:
    """(what, hint) for a claimant that was refused."""
    if verdict == ASKED:
        return f"the host wants {palace} and asked us to let it go.", "use the host's broker: ssh or tcp"
    if verdict == CROWDED or claim is None:
        return f"others claim {palace} again and again.", "try again, or see `mempalace-broker doctor`"
    if verdict == HELD:
        return _held(claim, palace)
    what = f"{palace} may still be held by {who(claim)}: silent for {silence_s:g} s and more, "
    if claim.state == UNREADABLE:
        what += "with a claim that can't be read."
    else:
        what += "and it stopped in the middle of a call, which it may go on with when it wakes."
    assert verdict == IN_DOUBT, verdict
    return what, (
        "resume or stop that container or machine in an orderly way: its broker then lets go by itself. Only if it is "
        "gone for certain: `mempalace-broker take-over --yes`"
    )


def _held(claim: Claim, palace: str) -> tuple[str, str]:
    what = f"{palace} is held by {who(claim)}, which is alive."
    if claim.state == CLAIMING:
        return what, "it is just starting: try again in some seconds"
    if claim.writer.kind == HOST:
        return what, "reach that broker by ssh or tcp, see docs/topologies.md"
    return what, "use it from there, or stop it there: `mempalace-broker stop`"
