"""Which connection goes where there are too many.

Anybody on this machine can connect, and a guest can show its token as often as it likes. Neither may keep the user's
own programs out: guests get half of the room, and the rest goes to whoever came last, who is about to show a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

    from .client import Pending

MOST = 256  # connections


class Connected(Protocol):
    """A connection.

    Attributes:
        known: it showed a token. is_guest: that was a guest's. reply: the answer that it waits for, or None.
    """

    known: bool
    is_guest: bool
    reply: Pending | None


_Connection = TypeVar("_Connection", bound=Connected)


def one_too_many(connections: Collection[_Connection], newcomer: _Connection) -> _Connection:
    """Return the connection to drop: the newcomer only if all others wait for answers.

    Args:
        connections: oldest first.
    """
    idle = [one for one in connections if one.reply is None and one is not newcomer]
    guests = [one for one in idle if one.is_guest]
    strangers = [one for one in idle if not one.known]
    crowded = sum(one.is_guest for one in connections) > MOST // 2
    first = [guests, strangers] if crowded else [strangers, guests]
    return next((crowd[0] for crowd in (*first, idle) if crowd), newcomer)
