"""`take-over`: a person's word that a silent holder beyond a kernel boundary is gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_OK, PalaceHeld
from .target import palace_options

if TYPE_CHECKING:
    from ..lease.machine.record import Claim
    from ..system.context import Context

_LOOK_S = 0.25


@click.command("take-over", short_help="Say that a silent holder in a container is gone.")
@click.option("--yes", is_flag=True, help="It is gone for certain, and will not come back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of words.")
@palace_options
def command_take_over(target: Context, yes: bool, as_json: bool) -> int:
    """Say that the broker which holds this palace from another kernel is gone, so that it can be opened again.

    Needed only when a container or virtual machine vanished in the middle of a call: then nobody but you can know
    whether it will ever go on with it. A holder that is only paused and goes on writes into the palace beside the
    next one: stop the container, or delete it, before you say yes. Without --yes it shows who holds it.

    \b
    Example:
      mempalace-broker take-over          who is it?
      mempalace-broker take-over --yes    it is gone

    \b
    Exit codes: 0 nothing stands in the way any more; 75 somebody holds it: it is alive, or
    --yes was not given; 73 the claims can't be read or written.
    """
    from ..lease.machine.describe import who

    waiting = holders(target)
    if waiting and not yes:
        names = "; ".join(who(claim) for claim in waiting)
        hint = "if it is gone for certain: mempalace-broker take-over --yes"
        raise PalaceHeld(f"{target.identity.path} may be held by {names}.", hint=hint)
    if waiting:
        declare(target, waiting)
    if as_json:
        click.echo(json.dumps({"taken_over": [claim.generation for claim in waiting]}))
    elif waiting:
        click.echo(f"taken over: {target.identity.path} is free; the next agent's call opens it.")
    else:
        click.echo(f"nothing to take over: nobody holds {target.identity.path} from another kernel.")
    return EXIT_OK


def holders(target: Context) -> list[Claim]:
    """The claims that stand in the way, watched long enough to know that they are silent.

    Raises:
        PalaceHeld: one of them is alive, or a broker of this kernel has the palace.
    """
    from ..lease.files import lock_id, survey
    from ..lease.machine.describe import is_resolved, who
    from ..lease.machine.lease import Rules
    from ..system.clock import Deadline
    from ..system.kernel import boot_id
    from ..system.lock import is_held

    listing, claims = survey(target.files.claims)
    before = {claim.generation: claim for claim in claims if not is_resolved(claim, listing)}
    if not before:
        return []
    if is_held(target.files.owner_lock):
        raise PalaceHeld(f"a broker here has {target.identity.path}.", hint="mempalace-broker stop")
    here = (boot_id(), lock_id(target.files.owner_lock))  # who had this very lock is dead, for it is free
    before = {n: claim for n, claim in before.items() if (claim.writer.boot, claim.writer.lock) != here}
    if not before:
        return []
    deadline = Deadline.after(target.clock, Rules().silence_s)
    while not deadline.expired:
        target.clock.sleep(min(_LOOK_S, deadline.remaining()))
        listing, claims = survey(target.files.claims)
        for claim in claims:
            old = before.get(claim.generation)
            if old is None or (claim.sequence != old.sequence and not is_resolved(claim, listing)):
                hint = "stop that broker, or the container that it runs in"
                raise PalaceHeld(f"{target.identity.path} is held by {who(claim)}, which is alive.", hint=hint)
    return [claim for claim in claims if claim.generation in before and not is_resolved(claim, listing)]


def declare(target: Context, gone: list[Claim]) -> None:
    """Write down that these are gone.

    Raises:
        StateRootError: that can't be written.
    """
    from ..errors import StateRootError
    from ..lease.files import LeaseFolder
    from ..lease.machine.record import Writer

    folder = LeaseFolder(target.files.claims, Writer())
    try:
        for claim in gone:
            folder.declare_gone(claim.generation, claim.sequence)
    except OSError as exc:
        hint = "make it writable, on a disk with room"
        raise StateRootError(f"cannot write into {folder.path}: {exc.strerror or exc}.", hint=hint) from exc
