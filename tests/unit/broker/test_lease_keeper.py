"""The keeper on real files, two brokers in one process, and time that jumps."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker import lease_keeper
from mempalace_broker.broker.lease_keeper import LeaseKeeper
from mempalace_broker.errors import PalaceHeld, StateRootError
from mempalace_broker.lease.acquire import AcquiredLease, LeaseAcquisition
from mempalace_broker.lease.files import LeaseFolder
from mempalace_broker.lease.machine.lease import LeasePolicy, LeaseState, Listing, NodeKind
from mempalace_broker.lease.machine.record import HolderId, LeaseRecord
from mempalace_broker.system.clock import Clock, Deadline

NEAR = HolderId(NodeKind.HOST, "near", "boot-near", "", 1, "1:1", 1.0, "aa")
FAR = HolderId(NodeKind.FOREIGN, "far", "boot-far", "", 2, "2:2", 2.0, "bb")


PAUSE_S = 4.0  # in which another broker can have come to own the palace


class Jumping(Clock):
    """Sleeps at once; `on_sleep` is what others do meanwhile."""

    __slots__ = ("now", "on_sleep")

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.now = 100.0
        self.on_sleep = on_sleep

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


async def until(done: Callable[[], bool]) -> None:
    """What a worker does comes back on the loop."""
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - there is nothing to await
            await asyncio.sleep(0.001)


class Node:
    """A keeper with its engine, as far as it sees one, and a loop for each of its operations."""

    def __init__(self, held: AcquiredLease, **more: Any) -> None:
        self.did: list[str] = []
        self.warned: list[str] = []
        self.dies = True
        self.paused = 0.0
        self.keeper = LeaseKeeper(
            held,
            kill=self._kill,
            fenced=self._fenced,
            asked=self._asked,
            log=logging.getLogger("test"),
            warn=lambda what, _: self.warned.append(what),
            elapsed=lambda: Clock().elapsed() + self.paused,
            **more,
        )

    def confirm(self, started: list[str] | None = None) -> bool:
        """Whether something may go to the engine; then one is `started`."""
        answers: list[bool] = []

        async def confirm() -> None:
            self.keeper.confirm(answers.append, lambda: started.append("engine") if started is not None else None)
            await until(lambda: bool(answers))

        asyncio.run(confirm())
        return answers[0]

    def beat(self) -> None:
        async def beat() -> None:
            self.keeper.beat()
            await until(lambda: not self.keeper._beating)
            await asyncio.get_running_loop().run_in_executor(self.keeper._worker, lambda: None)

        asyncio.run(beat())

    def rest(self) -> None:
        async def rest() -> None:
            self.keeper.rest()
            await until(lambda: self.keeper._rest_timer is None)

        asyncio.run(rest())

    def _kill(self) -> bool:
        self.did.append("kill")
        return self.dies

    def _fenced(self, why: str) -> None:
        self.did.append(f"fenced: {why}")

    def _asked(self) -> None:
        self.did.append("asked")


def acquire(
    path: Path, who: HolderId, on_sleep: Callable[[], None] = lambda: None, seconds: float = 60
) -> AcquiredLease:
    clock = Jumping(on_sleep)
    folder = LeaseFolder(str(path / "leases"), who, local=who.kind == NodeKind.HOST)
    return LeaseAcquisition(folder, clock, Deadline.after(clock, seconds)).run("/the/palace")


def test_a_host_takes_a_fresh_palace_and_the_next_one_follows(tmp_path: Path) -> None:
    first = Node(acquire(tmp_path, NEAR))
    assert first.keeper.epoch == 1
    assert first.confirm()
    first.keeper.release()
    second = acquire(tmp_path, NEAR._replace(nonce="cc"))
    assert second.holder.epoch == 2
    assert second.previous is not None
    assert second.previous.state == LeaseState.RELEASED
    keeper = Node(second).keeper
    keeper.tidy(1000.0)
    assert second.folder.listing().epochs == (1, 2), "an engine of before may still run"
    keeper.engine_lock_taken()
    keeper.tidy(3.0)
    assert second.folder.listing().epochs == (1, 2), "not everybody sees our name yet"
    keeper.tidy(4.0)
    assert keeper.facts()["epoch"] == 2
    assert keeper.facts()["lower"] == []
    assert second.folder.listing().epochs == (2,)
    keeper.release()


def test_busy_goes_up_and_down(tmp_path: Path) -> None:
    node = Node(acquire(tmp_path, NEAR))
    assert node.confirm()
    assert node.keeper.facts()["busy"]
    node.rest()
    facts = node.keeper.facts()
    assert not facts["busy"]
    assert (facts["state"], facts["kind"], facts["host"], facts["boot"]) == (
        LeaseState.ACTIVE,
        NodeKind.HOST,
        "near",
        "boot-nea",
    )
    node.keeper.release()
    assert not node.confirm()


def test_a_live_owner_is_named(tmp_path: Path) -> None:
    node = Node(acquire(tmp_path, NEAR))
    with pytest.raises(PalaceHeld, match=r"near, boot boot-nea, pid 1, since .*epoch 1, active.*alive") as caught:
        acquire(tmp_path, FAR, node.beat)
    assert "ssh or tcp" in caught.value.hint
    node.keeper.release()


def test_the_host_asks_and_the_container_lets_go(tmp_path: Path) -> None:
    far = Node(acquire(tmp_path, FAR))

    def meanwhile() -> None:
        far.beat()
        if far.did:
            far.keeper.release()

    near = acquire(tmp_path, NEAR, meanwhile)
    assert far.did == ["asked"]
    assert near.holder.epoch == 2
    assert not near.folder.listing().requested
    near.folder.close()


def test_a_container_that_does_not_let_go_is_named_in_time(tmp_path: Path) -> None:
    far = Node(acquire(tmp_path, FAR))
    with pytest.raises(PalaceHeld, match="alive") as caught:
        acquire(tmp_path, NEAR, far.beat, seconds=20)
    assert "stop it there" in caught.value.hint
    assert not LeaseFolder(str(tmp_path / "leases"), NEAR).listing().requested
    far.keeper.release()


def test_a_sleeper_wakes_up_fenced_before_its_next_call(tmp_path: Path) -> None:
    far = Node(acquire(tmp_path, FAR))
    near = Node(acquire(tmp_path, NEAR))
    assert near.keeper.epoch == 2
    assert not far.confirm()
    assert far.did == ["kill", "fenced: epoch 2 was acquired after ours (1)"]
    assert far.keeper.over
    assert near.confirm()
    far.keeper.release()
    near.keeper.release()


def test_a_sleeper_in_a_call_is_in_doubt(tmp_path: Path) -> None:
    far = Node(acquire(tmp_path, FAR))
    far.confirm()
    with pytest.raises(PalaceHeld, match="middle of a call") as caught:
        acquire(tmp_path, NEAR)
    assert "take-over --yes" in caught.value.hint
    far.rest()
    acquire(tmp_path, NEAR).folder.close()
    far.keeper.release()


def test_an_engine_that_does_not_die_keeps_the_lease(tmp_path: Path) -> None:
    far = Node(acquire(tmp_path, FAR))
    far.confirm()
    LeaseFolder(str(tmp_path / "leases"), NEAR).create(2)
    far.dies = False
    far.beat()
    assert far.keeper.over
    assert LeaseFolder(str(tmp_path / "leases"), NEAR).read(1).busy
    far.keeper.release()


def test_a_flag_that_can_t_be_written_lets_nothing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = acquire(tmp_path, FAR)
    node = Node(held)

    def broken(state: str, sequence: int, *, busy: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held.folder, "write", broken)
    assert not node.confirm()
    assert node.did == ["kill", "fenced: our lease could not be written"]
    node.keeper.release()


def test_on_a_foreign_kernel_the_flag_falls_after_a_flush_and_only_if_nothing_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "LINGER_S", 0.0)
    held = acquire(tmp_path, FAR)
    flushed: list[bool] = []
    idle = [False]

    def flush() -> None:
        flushed.append(True)
        if len(flushed) == 1:
            raise OSError(5, "Input/output error")

    node = Node(held, resting=lambda: idle[0], flush=flush)

    def rest() -> bool:
        node.rest()
        return bool(held.folder.read(1).busy)

    assert node.confirm()
    assert rest(), "a call began meanwhile"
    assert not flushed
    idle[0] = True
    assert rest(), "what can't be flushed keeps others in doubt"
    assert not rest()
    assert len(flushed) == 2
    node.keeper.release()
    assert held.folder.read(1).state == LeaseState.RELEASED


@pytest.mark.parametrize("who", [NEAR, FAR])
def test_an_engine_starts_only_under_a_confirmed_lease(tmp_path: Path, who: HolderId) -> None:
    node = Node(acquire(tmp_path, who))
    started: list[str] = []
    assert node.confirm(started)
    assert started == ["engine"]
    LeaseFolder(str(tmp_path / "leases"), NEAR).create(2)
    node.paused = PAUSE_S
    assert not node.confirm(started)
    assert started == ["engine"]
    assert node.did == ["kill", "fenced: epoch 2 was acquired after ours (1)"]
    node.keeper.release()


@pytest.mark.parametrize("who", [NEAR, FAR])
def test_neither_a_kill_nor_a_sync_holds_up_the_loop_and_nothing_overtakes_it(tmp_path: Path, who: HolderId) -> None:
    """While the engine of a lost lease is being killed, what asks for the lease waits, and is refused then."""
    held = acquire(tmp_path, who)
    killing, killed = threading.Event(), threading.Event()
    happened: list[str] = []

    def kill() -> bool:
        killing.set()
        happened.append("killed" if killed.wait(10) else "not killed")
        return True

    async def scene() -> None:
        keeper.beat()
        await until(killing.is_set)
        keeper.confirm(lambda ours: happened.append(f"ours: {ours}"), lambda: happened.append("started"))
        keeper.beat()
        await asyncio.sleep(0.01)
        assert happened == [], "the loop runs on, and nobody was answered"
        killed.set()
        await until(lambda: len(happened) == 3)
        await keeper.leave()

    paused = [0.0]
    keeper = LeaseKeeper(
        held,
        kill=kill,
        fenced=lambda why: happened.append("fenced"),
        asked=lambda: None,
        log=logging.getLogger("test"),
        warn=lambda what, _: happened.append(what),
        elapsed=lambda: Clock().elapsed() + paused[-1],
    )
    LeaseFolder(str(tmp_path / "leases"), NEAR).create(2)
    paused.append(PAUSE_S)
    asyncio.run(scene())
    assert happened == ["killed", "fenced", "ours: False"]
    assert held.folder.read(1).state == LeaseState.RELEASED
    keeper.release()


def test_a_folder_that_can_t_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "leases").touch()
    with pytest.raises(StateRootError):
        acquire(tmp_path, NEAR)


def test_a_container_beats_while_it_settles(tmp_path: Path) -> None:
    beats: list[int] = []
    other = LeaseFolder(str(tmp_path / "leases"), NEAR)
    held = acquire(tmp_path, FAR, lambda: beats.append(other.read(1).sequence))
    assert len(set(beats)) >= LeasePolicy().settle_s / LeasePolicy().poll_s - 1
    held.folder.close()


@pytest.mark.parametrize("who", [NEAR, FAR])
def test_a_lack_of_descriptors_is_waited_for_and_does_not_cost_the_palace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: HolderId
) -> None:
    held = acquire(tmp_path, who)
    node = Node(held)
    assert node.confirm()
    real, before = held.folder.listing, held.folder.read(1).sequence
    failures = [24, 23, 12]

    def listing() -> Any:
        if failures:
            raise OSError(failures.pop(), "none left")
        return real()

    monkeypatch.setattr(held.folder, "listing", listing)
    node.beat()
    assert not node.keeper.over
    assert held.folder.read(1).sequence > before, "others go on seeing us alive"
    assert failures == [24, 23]
    started: list[str] = []
    assert node.confirm(started), "asked again until somebody could look"
    assert started == ["engine"]
    assert node.did == []
    assert not failures
    failures.append(5)  # what is not a shortage is a folder that can't be read
    node.paused = PAUSE_S
    assert not node.confirm()
    assert node.did[-1].startswith("fenced")
    node.keeper.release()


def forge(path: Path, epoch: int, state: LeaseState, *, busy: bool) -> LeaseFolder:
    folder = LeaseFolder(str(path / "leases"), FAR)
    folder.create(epoch)
    folder.write(state, 9, busy=busy)
    folder.close()
    return folder


def test_a_host_keeps_its_palace_whatever_is_put_above_its_lease(tmp_path: Path) -> None:
    node = Node(acquire(tmp_path, NEAR))
    folder = forge(tmp_path, 2, LeaseState.ACTIVE, busy=True)
    (tmp_path / "leases" / "000000000003").write_bytes(b"torn")
    forge(tmp_path, 4, LeaseState.ACQUIRING, busy=False)
    forge(tmp_path, 999_999_999, LeaseState.ACQUIRING, busy=False)
    folder.declare_gone(1, node.keeper._holder.sequence)
    for _ in range(3):
        assert node.confirm()
        node.beat()
    assert (node.did, node.keeper.over) == ([], False)
    assert node.warned
    assert node.keeper.facts()["epoch"] == 1
    left = folder.listing()
    assert left.epochs == (1, 4), "only what a candidate can have made is left: the next start is not refused for it"
    assert not left.gone
    node.keeper.release()
    assert acquire(tmp_path, NEAR._replace(nonce="cc")).holder.epoch == 5


def test_a_look_meanwhile_changes_nothing_for_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(acquire(tmp_path, NEAR))
    keeper = node.keeper
    forge(tmp_path, 4, LeaseState.ACQUIRING, busy=False).close()
    assert node.confirm()
    looked: list[Listing] = []

    def made_up(_: LeaseFolder, found: Listing) -> frozenset[int]:
        looked.append(found)
        return frozenset()

    keeper._seen, seen = keeper._folder.listing(), keeper._folder.listing()
    monkeypatch.setattr(LeaseFolder, "answer", lambda *_: setattr(keeper, "_seen", Listing()))
    monkeypatch.setattr(LeaseFolder, "made_up", made_up)
    keeper.weed()
    assert looked == [seen]
    monkeypatch.undo()
    keeper.release()


class Stale(LeaseFolder):
    """A folder on a share that goes on showing a record as it was first read."""

    def __init__(self, path: str, me: HolderId) -> None:
        super().__init__(path, me)
        self._first: dict[int, LeaseRecord] = {}

    def read(self, epoch: int) -> LeaseRecord:
        return self._first.setdefault(epoch, super().read(epoch))


def test_a_living_host_is_found_by_a_name_where_a_share_shows_its_old_heartbeat(tmp_path: Path) -> None:
    host = Node(acquire(tmp_path, NEAR))
    host.beat()
    clock = Jumping(host.beat)
    share = Stale(str(tmp_path / "leases"), FAR)
    with pytest.raises(PalaceHeld, match="the host wants"):
        LeaseAcquisition(share, clock, Deadline.after(clock, 60)).run("/p")
    assert host.confirm()
    assert (host.did, host.keeper.over) == ([], False)
    host.keeper.release()
    assert acquire(tmp_path, FAR).holder.epoch == 3, "the answer was to that one alone"


def test_a_lease_above_that_was_made_while_the_host_paused_fences(tmp_path: Path) -> None:
    node = Node(acquire(tmp_path, NEAR))
    node.beat()
    node.paused = PAUSE_S
    forge(tmp_path, 2, LeaseState.ACTIVE, busy=False)
    node.beat()
    assert node.keeper.over
    node.keeper.release()


def test_a_pause_in_which_nobody_came_is_forgotten(tmp_path: Path) -> None:
    node = Node(acquire(tmp_path, NEAR))
    node.paused = PAUSE_S
    node.beat()
    node.beat()
    forge(tmp_path, 2, LeaseState.ACTIVE, busy=False)
    assert node.confirm()
    node.keeper.release()


def test_a_host_puts_its_lease_back(tmp_path: Path) -> None:
    """Removed, replaced, or with a link or nothing in place of its folder."""
    node = Node(acquire(tmp_path, NEAR))
    leases, name = tmp_path / "leases", "000000000001"

    def replaced() -> None:
        (leases / name).rename(leases / "000000000002")
        forge(tmp_path, 1, LeaseState.RELEASED, busy=False)

    def linked() -> None:
        leases.rename(tmp_path / "elsewhere")
        leases.symlink_to("elsewhere")

    for spoil in ((leases / name).unlink, replaced, linked, lambda: shutil.rmtree(leases)):
        spoil()
        node.beat()
        node.confirm()
        lease = LeaseFolder(str(leases), FAR).read(1)
        assert (lease.state, lease.holder) == (LeaseState.ACTIVE, NEAR)
        node.rest()
    assert node.did == []
    node.keeper.release()
    assert LeaseFolder(str(leases), FAR).read(1).state == LeaseState.RELEASED


@pytest.mark.parametrize("why", ["another may have made it", "broker.lock was removed, too", "too late"])
def test_a_host_does_not_put_back_what_may_be_anothers(tmp_path: Path, why: str) -> None:
    node = Node(acquire(tmp_path, NEAR), elects=lambda: why != "broker.lock was removed, too")
    node.beat()
    (tmp_path / "leases" / "000000000001").unlink()
    if why == "another may have made it":
        forge(tmp_path, 1, LeaseState.ACQUIRING, busy=False)
    node.paused = 2.5 if why == "too late" else 0.0
    node.beat()
    assert node.did == ["kill", "fenced: our lease, epoch 1, was removed"]
    node.keeper.release()
