"""Does a share keep the promises that leases rest on, as far as one side alone can tell?

One side sees its own names and records only. What another kernel's names and records do here, only another kernel can
show: a living host answers a candidate by a name (broker/lease_keeper.py), and `mempalace-broker selftest --share`
measures it with a half on either side.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import StateRootError
from ..system.kernel import sync_data
from ..system.shared_files import SharedFolder
from .files import read_fresh
from .machine.lease import VISIBILITY_DELAY_S
from .machine.record import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..system.clock import Clock

_LOOK_AGAIN_S = 0.01


def require_promises(path: str, clock: Clock) -> None:
    """Refuse a folder of leases on a share that breaks a promise.

    Raises:
        StateRootError: says which, and what to use instead.
    """
    broken = broken_promises(path, clock)
    if broken:
        raise StateRootError(
            f"{path} lies on a share on which a lease proves nothing: {'; '.join(broken)}.",
            hint="reach the host's broker over ssh (MEMPALACE_BROKER_SSH_HOST) or tcp; see docs/topologies.md",
        )


def broken_promises(path: str, clock: Clock, within_s: float = VISIBILITY_DELAY_S) -> list[str]:
    """What this folder does not keep, in words: each name that is made has one maker, and a second look, which opens
    everything anew, finds names, removals and records within that time.
    """
    name = f"probe-{os.urandom(4).hex()}"
    broken: list[str] = []
    try:
        with SharedFolder.open(path) as folder:
            fd = folder.open_new(name)
            try:
                if _made_again(folder, name):
                    broken.append("a name can be created twice")
                if not _seen(clock, within_s, lambda: name in _names(path)):
                    broken.append("a new name is not listed")
                for data in (b"1" * SIZE, b"2" * SIZE):
                    os.pwrite(fd, data, 0)
                    sync_data(fd)
                    if not _seen(clock, within_s, lambda data=data: read_fresh(path, name) == data):  # type: ignore[misc]
                        broken.append("a record that was written in place is not read")
                        break
            finally:
                os.close(fd)
                folder.remove(name)
            if not _seen(clock, within_s, lambda: name not in _names(path) and read_fresh(path, name) is None):
                broken.append("a removed name is still there")
    except OSError as exc:
        broken.append(f"a file can't be made, written, synced and removed ({exc.strerror or exc})")
    return broken


def _made_again(folder: SharedFolder, name: str) -> bool:
    try:
        os.close(folder.open_new(name))
    except FileExistsError:
        return False
    return True


def _names(path: str) -> list[str]:
    with SharedFolder.open(path) as folder:
        return folder.names()


def _seen(clock: Clock, within_s: float, look: Callable[[], bool]) -> bool:
    end = clock.monotonic() + within_s
    while not look():
        if clock.monotonic() >= end:
            return False
        clock.sleep(_LOOK_AGAIN_S)
    return True
