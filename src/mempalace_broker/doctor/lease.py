"""`doctor` on claims: who says that he has the palace, across kernels (docs/claims.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StateRootError
from ..lease.files import lock_id, survey
from ..lease.machine.describe import is_resolved, who
from ..lease.machine.lease import FOREIGN
from ..system.kernel import boot_id
from .findings import ERROR, INFO, OK, WARN, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..lease.machine.lease import Listing
    from ..lease.machine.record import Claim


def claims(path: str, owner_lock: str) -> Iterator[Row]:
    """What the folder of claims at `path` says; one look, so nothing about who is alive."""
    try:
        listing, found = survey(path)
    except StateRootError as exc:
        yield Row(ERROR, "claims", exc.message, exc.hint)
        return
    yield from rows(listing, found, boot_id(), lock_id(owner_lock))


def rows(listing: Listing, found: list[Claim], boot: str, lock: str) -> Iterator[Row]:
    """The same, of what was read; `boot`, `lock`: ours, as `Writer` has them."""
    waiting = [claim for claim in found if not is_resolved(claim, listing)]
    if not waiting:
        last = f"the last was generation {found[-1].generation}" if found else "there never was one"
        yield Row(OK, "claims", f"nobody claims this palace; {last}")
    for claim in waiting:
        writer = claim.writer
        if (writer.boot, writer.lock) == (boot, lock):
            yield Row(OK, "claims", f"generation {claim.generation}, of this kernel (pid {writer.pid})")
        elif writer.kind != FOREIGN:
            yield Row(INFO, "claims", f"{who(claim)}: made before this machine was started anew, or on another one")
        else:
            hint = "reach or stop that broker; if it is gone for certain: mempalace-broker take-over --yes"
            busy = ", in the middle of a call" if claim.busy else ""
            yield Row(WARN, "claims", f"{who(claim)}{busy}", hint)
    if listing.asks:
        yield Row(INFO, "claims", "the palace's own machine asks for it: a handover is under way, or was given up")
