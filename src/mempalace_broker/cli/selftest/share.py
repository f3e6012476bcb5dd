"""Checks of a share, made with a half on either side of it: what crosses, and after how long."""

from __future__ import annotations

import errno
import os
import socket
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ...lease.files import read_fresh
from ...lease.machine.lease import VISIBILITY_DELAY_S
from ...lease.machine.record import SIZE
from ...lease.share_probe import broken_promises
from ...system.clock import Clock, fraction
from ...system.file_trust import distrust_file, trusted_owners
from ...system.kernel import sync_data
from ...system.shared_files import SharedFolder
from ...system.unix_socket import bind, connect
from .check import Check, Outcome, Verdict
from .half import LOOK_AGAIN_S, MEET_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from .check import Bench
    from .half import Half

ROUNDS, RACES = 10, 20
SEEN_S = 5.0  # how long one side waits to see one thing
_HEAD_START_S = 0.5
_LATE = "-late"


def _measure_promises(half: Half, bench: Bench) -> list[str]:
    """What one side alone can try, as a direct broker does before it acquires a lease; then find the other half."""
    broken = broken_promises(half.path, Clock())
    bench.note(f"now start `mempalace-broker selftest --share` on this folder's other side, within {MEET_S:.0f} s")
    return broken


def _judge_promises(broken: list[str]) -> Outcome:
    """A direct broker refuses a share that breaks one."""
    return Outcome(Verdict.FAILED if broken else Verdict.OK, "" if broken else "none is broken", "; ".join(broken))


def _measure_meeting(half: Half, _: Bench) -> tuple[int, int, str]:
    """Of the other half's file: uid and mode as they are seen here, and why the broker would not believe it."""
    half.meet(MEET_S)
    half.step("met")
    with SharedFolder.open(half.path) as folder:
        fd = folder.open_read(f"half-{half.other}")
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return found.st_uid, found.st_mode & 0o7777, distrust_file(found, trusted_owners(os.fstat(folder.fd)))


def _judge_meeting(found: tuple[int, int, str]) -> Outcome:
    """A share may make up owners and modes; the broker believes files of its own user and of the folder's owner."""
    figure = f"its files have uid {found[0]}, mode {found[1]:o} here, we are {os.geteuid()}"
    return Outcome(Verdict.FAILED if found[2] else Verdict.OK, figure, found[2])


# -- how long something takes to the other side and back

Crossing = tuple[float | None, ...]  # seconds, None where it was not seen in time


def _measure_names(half: Half, _: Bench) -> Crossing:
    """Ping by a name, pong by a name."""
    half.step("names")
    return _in_turn(
        half, "ping", lambda n: half.make(f"ping-{n}-{half.me}"), lambda n: f"ping-{n}-{half.other}" in half.names()
    )


def _measure_records(half: Half, _: Bench) -> Crossing:
    """Overwrite a record in place; the other side says by a name that it has read it, past its cache."""
    half.make(f"record-{half.me}")
    with SharedFolder.open(half.path) as folder:
        fd = folder.open_in_place(f"record-{half.me}")
    try:
        os.pwrite(fd, bytes(SIZE), 0)
        half.step("records")
        _read(half, f"record-{half.other}")  # so that it is in the cache

        def write(number: int) -> None:
            os.pwrite(fd, bytes([number]) * SIZE, 0)
            sync_data(fd)

        return _in_turn(
            half, "record", write, lambda n: read_fresh(half.path, f"record-{half.other}") == bytes([n]) * SIZE
        )
    finally:
        os.close(fd)


def _in_turn(half: Half, word: str, do: Callable[[int], object], seen: Callable[[int], bool]) -> Crossing:
    """Let one half do something and the other see and answer it, then the other way round; what came of our doing."""
    found: list[float | None] = []
    for asks in (half.leads, not half.leads):
        for number in range(1, ROUNDS + 1):
            if asks:
                begun = time.monotonic()
                do(number)
                if not half.wait(f"{word}-{number}-to-{half.me}", SEEN_S * 2):
                    found.append(None)
                    break
                late = f"{word}-{number}-to-{half.me}{_LATE}" in half.names()
                found.append(None if late else time.monotonic() - begun)
            else:
                if not _within(partial(seen, number)):
                    half.make(f"{word}-{number}-to-{half.other}{_LATE}")
                half.make(f"{word}-{number}-to-{half.other}")
        half.step(f"{word}-turn-{asks == half.leads}")
    return tuple(found)


def _within(look: Callable[[], bool]) -> bool:
    end = time.monotonic() + SEEN_S
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_AGAIN_S)
    return True


def _read(half: Half, name: str) -> bytes:
    with SharedFolder.open(half.path) as folder:
        return folder.read(name, SIZE) or b""


def _judge_crossing(found: Crossing) -> Outcome:
    """Leases need it within D."""
    times = [seconds * 1000 for seconds in found if seconds is not None]
    figure = f"there and back {statistics.median(times):.0f} ms, at most {max(times):.0f} ms" if times else "never"
    if (late := len(found) - len(times)) or not times:
        return Outcome(Verdict.FAILED, figure, f"not seen within {SEEN_S:.0f} s: {late} of {len(found)}")
    if max(times) > VISIBILITY_DELAY_S * 1000:
        return Outcome(Verdict.FAILED, figure, f"leases need {VISIBILITY_DELAY_S * 1000:.0f} ms")
    return Outcome(Verdict.OK, figure)


# -- what is removed, what both create, and sockets


class Removal(NamedTuple):
    """What opening a name said that the other half had removed, and after how many seconds it was absent."""

    said: str
    seconds: float | None


def _measure_removal(half: Half, _: Bench) -> Removal:
    """Open a file of the other half, let it remove the file, open it again until it is gone."""
    theirs = f"doomed-{half.other}"
    half.make(f"doomed-{half.me}")
    half.step("doomed")
    _read(half, theirs)
    half.step("cached")
    half.remove(f"doomed-{half.me}")
    half.step("removed")
    begun, said = time.monotonic(), _open(half, theirs)
    gone = _within(lambda: _open(half, theirs) == "ENOENT")
    return Removal(said, time.monotonic() - begun if gone else None)


def _open(half: Half, name: str) -> str:
    def opened() -> None:
        with SharedFolder.open(half.path) as folder:
            os.close(folder.open_read(name))

    return _said(opened)


def _said(do: Callable[[], object]) -> str:
    try:
        do()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "ok"


def _judge_removal(found: Removal) -> Outcome:
    """A lease that was removed must be seen to be gone."""
    if found.seconds is None:
        return Outcome(Verdict.FAILED, f"open says {found.said}", f"a removed name stays for more than {SEEN_S:.0f} s")
    late = found.seconds > VISIBILITY_DELAY_S
    figure = f"open says {found.said}; gone after {found.seconds * 1000:.0f} ms"
    return Outcome(Verdict.FAILED if late else Verdict.OK, figure, "leases need less" if late else "")


def _measure_race(half: Half, _: Bench) -> tuple[int, int]:
    """Create the same names at the same moment: how many this half won, and how many the other one says it did."""
    won = 0
    for number in range(RACES):
        # the quicker half waited for the other one, and gives it a head start, or it would win every time
        time.sleep(min(2 * fraction() * half.step(f"race-{number}"), _HEAD_START_S))
        won += _said(lambda number=number: half.make(f"won-{number}-{half.both}")) == "ok"  # type: ignore[misc]
    half.make(f"wins-{half.me}-{won}")
    half.step("raced")
    prefix = f"wins-{half.other}-"
    return won, next((int(name[len(prefix) :]) for name in half.names() if name.startswith(prefix)), -1)


def _judge_race(wins: tuple[int, int]) -> Outcome:
    """O_EXCL has one winner."""
    good = wins[1] >= 0 and sum(wins) == RACES
    figure = f"{wins[0]} won here, {wins[1]} there, of {RACES}"
    return Outcome(Verdict.OK if good else Verdict.FAILED, figure, "" if good else "a name had two winners, or none")


def _measure_socket(half: Half, _: Bench) -> tuple[str, str]:
    """What bind said here, and what connecting to the other half's socket said: an errno's name, or "ok"."""
    ours, theirs = f"s-{half.me}", f"s-{half.other}"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
        SharedFolder.open(half.path) as folder,
    ):
        bound = _said(lambda: bind(listener, folder.fd, ours, os.path.join(half.path, ours)))
        if bound == "ok":
            listener.listen(1)
        half.step("socket")
        client.settimeout(SEEN_S)
        dialled = _said(lambda: connect(client, os.path.join(half.path, theirs)))
        half.step("dialled")
        half.remove(ours)
        return bound, dialled


def _judge_socket(found: tuple[str, str]) -> Outcome:
    """A client tries ssh and TCP whatever a share answers, but for two answers."""
    figure = f"bind {found[0]}, connect {found[1]}"
    if found[1] in ("EAGAIN", "EACCES"):
        return Outcome(Verdict.FAILED, figure, "a client takes this for an owner, and tries no other route")
    known = found[0] == "ok" and found[1] in ("ok", "ECONNREFUSED")
    return Outcome(Verdict.OK if known else Verdict.DIFFERS, figure, "" if known else "not seen on any share before")


_CHECKS: tuple[tuple[str, Callable[[Half, Bench], Any], Callable[[Any], Outcome]], ...] = (
    ("promises", _measure_promises, _judge_promises),
    ("meeting", _measure_meeting, _judge_meeting),
    ("names", _measure_names, _judge_crossing),
    ("records", _measure_records, _judge_crossing),
    ("removal", _measure_removal, _judge_removal),
    ("race", _measure_race, _judge_race),
    ("socket", _measure_socket, _judge_socket),
)


def share_checks(half: Half) -> tuple[Check, ...]:
    """All of them, for this half."""
    return tuple(Check(f"share: {name}", partial(measure, half), judge, 90.0) for name, measure, judge in _CHECKS)
