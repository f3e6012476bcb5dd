"""Findings about leases: who owns the palace, across kernels (docs/leases.md)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import StateRootError
from ..lease.files import MARGIN, read_leases
from ..lease.machine.describe import describe_holder
from ..lease.machine.lease import MAX_EPOCH, LeaseState, NodeKind
from ..lease.machine.record import HolderId, is_copied
from ..protocol.text import printable
from ..system.kernel import boot_id, file_id
from .findings import error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..lease.machine.lease import Listing
    from ..lease.machine.record import LeaseRecord
    from .findings import Finding

_MOST_NAMES = 5
_REMOVE = "mempalace-broker take-over --yes"
_GONE = "reach or stop that broker; if it is gone for certain: mempalace-broker take-over --yes"


def leases(path: str, owner_lock: str) -> Iterator[Finding]:
    """What the folder of leases at `path` says. It is read once, so nothing is known about who is alive."""
    try:
        listing, found = read_leases(path)
    except StateRootError as exc:
        yield error("lease", exc.message, exc.hint)
        return
    me = HolderId(boot=boot_id(), lock=file_id(owner_lock), palace=file_id(os.path.dirname(owner_lock)))
    yield from judge_leases(listing, found, me)


def judge_leases(listing: Listing, found: list[LeaseRecord], me: HolderId) -> Iterator[Finding]:
    """The findings on leases that were read; `me`: the host's broker, if it ran now."""
    open_ = [lease for lease in found if not lease.is_resolved(listing)]
    if listing.strange:
        names = ", ".join(map(printable, listing.strange[:_MOST_NAMES]))
        more = f" and {len(listing.strange) - _MOST_NAMES} more" if len(listing.strange) > _MOST_NAMES else ""
        yield warn("lease", f"no broker made these, and they count for nothing: {names}{more}", _REMOVE)
    if listing.top > MAX_EPOCH - MARGIN:
        yield error("lease", f"epoch {listing.top} leaves no room for the next brokers, and no broker made it", _REMOVE)
    if not open_:
        last = f"the last one was epoch {found[-1].epoch}" if found else "there never was one"
        yield ok("lease", f"no broker holds a lease of this palace; {last}")
    for lease in open_:
        holder = lease.holder
        if is_copied(holder, me):
            yield info("lease", f"epoch {lease.epoch} is of another palace, from which this one was copied; void here")
        elif (holder.boot, holder.lock) == (me.boot, me.lock):
            yield ok("lease", f"epoch {lease.epoch}, of this kernel (pid {holder.pid})")
        elif lease.state is LeaseState.UNREADABLE:
            yield warn("lease", f"epoch {lease.epoch} is not a lease that can be read", _GONE)
        elif holder.kind is not NodeKind.FOREIGN:
            who = describe_holder(lease)
            yield info("lease", f"{who}: acquired before this machine was restarted, or on another one")
        else:
            busy = ", in the middle of a call" if lease.busy else ""
            yield warn("lease", f"{describe_holder(lease)}{busy}", _GONE)
    if listing.requested:
        yield info("lease", "the palace's own machine asks for it: a handover is under way, or was given up")
