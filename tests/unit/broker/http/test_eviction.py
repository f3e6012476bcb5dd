"""Which connection over HTTP goes where there are too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mempalace_broker.broker.http.eviction import MOST, one_too_many


@dataclass(eq=False)
class Connection:
    name: str
    known: bool = False
    is_guest: bool = False
    reply: Any = None


USER = Connection("user", known=True)
GUEST = Connection("guest", known=True, is_guest=True)
BUSY_GUEST = Connection("busy guest", known=True, is_guest=True, reply=object())
BUSY_USER = Connection("busy user", known=True, reply=object())
STRANGER, NEW = Connection("stranger"), Connection("new")
HALF = MOST // 2


@pytest.mark.parametrize(
    ("there", "victim"),
    [
        ([USER, GUEST, STRANGER], STRANGER),
        ([USER, GUEST], GUEST),
        ([BUSY_USER, USER], USER),
        ([BUSY_USER, BUSY_GUEST], NEW),
        ([USER, STRANGER, *[GUEST] * HALF], STRANGER),
        ([USER, STRANGER, *[GUEST] * HALF, GUEST], GUEST),
        ([USER, STRANGER, GUEST, *[BUSY_GUEST] * HALF], GUEST),
        ([USER, STRANGER, *[BUSY_GUEST] * (HALF + 1)], STRANGER),
    ],
)
def test_guests_get_half_of_the_room(there: list[Connection], victim: Connection) -> None:
    assert one_too_many([*there, NEW], NEW) is victim
