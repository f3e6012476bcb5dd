"""`take-over`: a person confirms that a silent holder beyond a kernel boundary is gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_OK, PalaceHeld
from .context_options import palace_options
from .outcome import say

if TYPE_CHECKING:
    from ..lease.machine.record import LeaseRecord
    from ..system.paths import Context

_LOOK_S = 0.25
_MOST_NAMED = 3  # anybody who can write the folder of leases can make thousands


@click.command("take-over", short_help="Confirm that a silent holder in a container is gone.")
@click.option("--yes", is_flag=True, help="It is gone for certain and will not come back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of words.")
@palace_options
def command_take_over(context: Context, yes: bool, as_json: bool) -> int:
    """Confirm that the broker that holds this palace from another kernel is gone, so that it can be opened again.

    Needed only when a container or virtual machine vanished in the middle of a call: only you can know whether it will
    ever continue. If it is merely paused and then continues, two brokers write into the palace: stop or delete the
    container before you say yes. Without --yes the command shows who holds the palace. With it, files in the folder of
    leases that no broker can have made are removed, too.

    \b
    Example:
      mempalace-broker take-over          who is it?
      mempalace-broker take-over --yes    it is gone

    \b
    Exit codes: 0 nothing is in the way any more; 75 a broker holds it: it is alive, or
    --yes was not given; 73 the leases can't be read or written.
    """
    from ..lease.files import mend
    from ..lease.machine.describe import describe_holder

    removed = mend(context.files.leases) if yes else []
    waiting = holders(context)
    if waiting and not yes:
        names = "; ".join(describe_holder(lease) for lease in waiting[-_MOST_NAMED:])
        if len(waiting) > _MOST_NAMED:
            names += f"; and {len(waiting) - _MOST_NAMED} more"
        hint = "if it is gone for certain: mempalace-broker take-over --yes"
        raise PalaceHeld(f"{context.identity.path} may be held by {names}.", hint=hint)
    if waiting:
        declare(context, waiting)
        removed += mend(context.files.leases)  # what was in the way of higher epochs is resolved now
    if as_json:
        click.echo(json.dumps({"taken_over": [lease.epoch for lease in waiting], "removed": removed}))
        return EXIT_OK
    if removed:
        say(f"removed what no broker made: {', '.join(removed)}")
    if waiting:
        say(f"taken over: {context.identity.path} is free; the next agent's call opens it.")
    elif not removed:
        say(f"nothing to take over: no broker on another kernel holds {context.identity.path}.")
    return EXIT_OK


def holders(context: Context) -> list[LeaseRecord]:
    """The open leases of other kernels, watched long enough to know that their holders are silent.

    Raises:
        PalaceHeld: one of them is alive, or a broker of this kernel has the palace.
    """
    from ..lease.files import read_leases
    from ..lease.machine.describe import describe_holder
    from ..lease.machine.lease import LeasePolicy
    from ..lease.machine.record import HolderId, is_copied
    from ..system.clock import Deadline
    from ..system.kernel import boot_id, file_id
    from ..system.lock import is_held

    listing, leases = read_leases(context.files.leases)
    before = {lease.epoch: lease for lease in leases if not lease.is_resolved(listing)}
    if not before:
        return []
    if is_held(context.files.owner_lock):
        raise PalaceHeld(f"a broker here has {context.identity.path}.", hint="mempalace-broker stop")
    files = context.files
    me = HolderId(boot=boot_id(), lock=file_id(files.owner_lock), palace=file_id(files.palace))

    def void(holder: HolderId) -> bool:  # whoever held this very lock is dead: the lock is free
        return (holder.boot, holder.lock) == (me.boot, me.lock) or is_copied(holder, me)

    before = {epoch: lease for epoch, lease in before.items() if not void(lease.holder)}
    if not before:
        return []
    known = set(listing.epochs)
    deadline = Deadline.after(context.clock, LeasePolicy().silence_s)
    while not deadline.expired:
        context.clock.sleep(min(_LOOK_S, deadline.remaining()))
        listing, leases = read_leases(context.files.leases)
        for lease in leases:
            old = before.get(lease.epoch)
            new = lease.epoch not in known
            moved = old is not None and lease.sequence != old.sequence
            if (new or moved) and not (lease.is_resolved(listing) or void(lease.holder)):
                hint = "stop that broker, or the container that it runs in"
                raise PalaceHeld(
                    f"{context.identity.path} is held by {describe_holder(lease)}, which is alive.", hint=hint
                )
    return [lease for lease in leases if lease.epoch in before and not lease.is_resolved(listing)]


def declare(context: Context, gone: list[LeaseRecord]) -> None:
    """Write down that these are gone.

    Raises:
        StateRootError: that can't be written.
    """
    from ..errors import StateRootError, file_hint
    from ..lease.files import LeaseFolder
    from ..lease.machine.record import HolderId

    folder = LeaseFolder(context.files.leases, HolderId())
    try:
        for lease in gone:
            folder.declare_gone(lease.epoch, lease.sequence)
    except OSError as exc:
        raise StateRootError(f"cannot write into {folder.path}: {exc.strerror or exc}.", hint=file_hint(exc)) from exc
