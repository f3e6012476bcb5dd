"""`take-over` asks about leases that are open, whatever else lies beside them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.cli.take_over import holders
from mempalace_broker.errors import PalaceHeld
from mempalace_broker.lease.files import LeaseFolder
from mempalace_broker.lease.machine.lease import LeaseState, NodeKind
from mempalace_broker.lease.machine.record import HolderId, encode
from mempalace_broker.system.clock import Clock
from mempalace_broker.system.paths import StateFiles

FAR = HolderId(NodeKind.FOREIGN, "vm", "boot-far", "", 2, "2:2", since=2.0, nonce="bb")


class Jumping(Clock):
    """A clock that `sleep` moves; `on_sleep` happens then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.on_sleep: Any = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


@pytest.fixture
def context(tmp_path: Path) -> Any:
    palace = tmp_path / "palace"
    palace.mkdir(mode=0o700)
    files = StateFiles(str(tmp_path), str(palace), env={"HOME": str(tmp_path)})
    LeaseFolder(files.leases, HolderId()).prepare()
    return SimpleNamespace(files=files, clock=Jumping(), identity=SimpleNamespace(path=str(palace)))


def lease(context: Any, epoch: int, state: LeaseState, sequence: int = 9, *, busy: bool = False) -> None:
    data = encode(epoch, state, sequence, busy=busy, holder=FAR.encode())
    Path(context.files.leases, f"{epoch:012}").write_bytes(data)


def test_a_released_lease_beside_a_silent_one_is_nobody_who_lives(context: Any) -> None:
    lease(context, 1, LeaseState.RELEASED)
    lease(context, 2, LeaseState.ACTIVE, busy=True)
    lease(context, 3, LeaseState.RELEASED)
    assert [found.epoch for found in holders(context)] == [2]


def test_one_that_moves_or_comes_meanwhile_lives(context: Any) -> None:
    lease(context, 2, LeaseState.ACTIVE)
    context.clock.on_sleep = lambda: lease(context, 2, LeaseState.ACTIVE, 10)
    with pytest.raises(PalaceHeld, match=r"epoch 2, active.*alive"):
        holders(context)
    context.clock.on_sleep = lambda: lease(context, 5, LeaseState.ACQUIRING)
    with pytest.raises(PalaceHeld, match=r"epoch 5, acquiring.*alive"):
        holders(context)


def test_of_many_the_highest_are_watched(context: Any) -> None:
    for epoch in range(1, 600):
        Path(context.files.leases, f"{epoch:012}").touch()
    context.clock.on_sleep = lambda: Path(context.files.leases, "000000000599").unlink(missing_ok=True)
    assert holders(context)
