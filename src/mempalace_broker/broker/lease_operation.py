"""One operation of the lease machine, as the lease keeper queues it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..lease.machine.hold import Holding, LeaseHolder


class LocalShortage(Exception):
    """This process, or the system, has no descriptor or no memory left, or the folder is not there at the moment."""


class Operation(NamedTuple):
    """One operation of the machine.

    Attributes:
        begin: one of LeaseHolder's methods. done: gets its outcome, on the loop.
        prepare: runs before it, in the same thread; False leaves the operation out.
        when_clear: runs right after the outcome CLEAR, in the same thread and before any other operation.
    """

    begin: Callable[[LeaseHolder], LeaseHolder]
    done: Callable[[Holding | None], None]
    prepare: Callable[[], bool] = lambda: True
    when_clear: Callable[[], None] = lambda: None
