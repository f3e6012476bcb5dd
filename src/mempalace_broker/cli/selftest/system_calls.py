"""Checks of what the system does where Linux and macOS differ without an error (docs/macos.md)."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from ...system import kernel
from ...system.hangup import Hangup
from ...system.unix_socket import bind
from .check import Check, Outcome, TookTooLong, Verdict, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from .check import Bench

_MASKS = {"0": 0, "ERR": select.POLLERR, "HUP": select.POLLHUP, "IN": select.POLLIN, "OUT": select.POLLOUT}
_BACKLOG, _MOST_CONNECTS = 16, 300
_BIG, _SMALL, _MOST_SENT = 60_000, kernel.SOCKET_ROOM, 4 << 20
_SLOW_MS = 1000.0


def _as_documented(*, macos: bool, figure: str, why: str) -> Outcome:
    """For a difference between the systems: ok where it shows on the system that has it, and only there."""
    return Outcome(
        Verdict.OK if macos == kernel.MACOS else Verdict.DIFFERS, figure, "" if macos == kernel.MACOS else why
    )


# -- send without waiting


class Sent(NamedTuple):
    """Bytes that a socket took whose other side does not read, and whether a call blocked; big ones with MSG_DONTWAIT,
    small ones where poll said that there is room.
    """

    big: int
    big_blocked: bool
    small: int
    small_blocked: bool


def _measure_send(_: Bench) -> Sent:
    """Fill two socket pairs."""
    return Sent(*_fill(_BIG, polls=False), *_fill(_SMALL, polls=True))


def _fill(size: int, *, polls: bool) -> tuple[int, bool]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent, poller = 0, select.poll()
        poller.register(ours, select.POLLOUT)
        try:
            with time_limit(2.0):
                while sent < _MOST_SENT and not (polls and not poller.poll(0)):
                    sent += ours.send(bytes(size), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return sent, False
        except TookTooLong:
            return sent, True
        return sent, False


def _judge_send(sent: Sent) -> Outcome:
    """The shim sends small pieces after poll on macOS, and relies on MSG_DONTWAIT elsewhere."""
    how = "blocks" if sent.big_blocked else f"EAGAIN after {sent.big} bytes"
    figure = f"MSG_DONTWAIT: {how}; {_SMALL} after poll: {'blocks' if sent.small_blocked else f'{sent.small} bytes'}"
    if sent.small_blocked or not sent.small or (sent.big_blocked and not kernel.MACOS):
        return Outcome(Verdict.FAILED, figure, "a session would freeze where its agent does not read")
    return _as_documented(macos=sent.big_blocked, figure=figure, why="MSG_DONTWAIT counts here")


# -- hang-ups


def _measure_hangups(_: Bench) -> dict[str, tuple[list[str], bool]]:
    """Kind of descriptor -> the masks with which poll reports that the other side closed, and whether ours does."""
    found = {}
    for kind, make in _PAIRS.items():
        masks = [name for name, mask in _MASKS.items() if _polled(make, mask)]
        found[kind] = (masks, _seen_by_us(make, writes=kind == "pipe, writing"))
    return found


def _seen_by_us(make: Callable[[], tuple[int, int]], *, writes: bool) -> bool:
    watched, closed = make()
    try:
        poller = select.poll()
        hangup = Hangup(watched, poller, writes=writes)
        os.close(closed)
        return hangup.seen(poller.poll(500))
    finally:
        os.close(watched)


def _socket_pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


_PAIRS: dict[str, Callable[[], tuple[int, int]]] = {  # (what is watched, what is closed)
    "pipe, reading": os.pipe,
    "pipe, writing": lambda: os.pipe()[::-1],
    "socket": _socket_pair,
    "pty": os.openpty,
}


def _polled(make: Callable[[], tuple[int, int]], mask: int) -> bool:
    watched, closed = make()
    try:
        poller = select.poll()
        poller.register(watched, mask)
        os.close(closed)
        return any(event & ~select.POLLOUT for _, event in poller.poll(50))
    finally:
        os.close(watched)


def _judge_hangups(found: dict[str, tuple[list[str], bool]]) -> Outcome:
    """Everything that ends with its peer rests on this: shim, engine, dial-stdio."""
    figure = "; ".join(f"{kind}: {' '.join(masks) or 'none'}" for kind, (masks, _) in found.items())
    missed = [kind for kind, (_, seen) in found.items() if not seen and kind != "pty"]
    if missed:
        return Outcome(Verdict.FAILED, figure, f"nobody notices that the other side left: {', '.join(missed)}")
    blind = not any("0" in masks for masks, _ in found.values())
    return _as_documented(macos=blind, figure=figure, why=f"poll for no event reports {'nothing' if blind else 'it'}")


# -- a full backlog


def _measure_backlog(bench: Bench) -> tuple[int, int]:
    """How many connects a listener takes that never accepts, and the errno of the next; 0 if there was none."""
    path = str(bench.root / "b.sock")
    folder = os.open(bench.root, os.O_RDONLY | os.O_DIRECTORY)
    waiting: list[socket.socket] = []
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            bind(listener, folder, "b.sock", path)
            listener.listen(_BACKLOG)
            for _ in range(_MOST_CONNECTS):
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                if code := waiting[-1].connect_ex(path):
                    return len(waiting) - 1, code
            return len(waiting), 0
    finally:
        for sock in waiting:
            sock.close()
        os.unlink(path)
        os.close(folder)


def _judge_backlog(found: tuple[int, int]) -> Outcome:
    """Linux says "try again", macOS what it says where nobody listens; the broker's lock tells them apart."""
    count, code = found
    name = errno.errorcode.get(code, str(code)) if code else "no refusal"
    figure = f"{name} after {count} of backlog {_BACKLOG}"
    if code not in (errno.EAGAIN, errno.ECONNREFUSED):
        return Outcome(Verdict.DIFFERS, figure, "neither EAGAIN nor ECONNREFUSED")
    return _as_documented(macos=code == errno.ECONNREFUSED, figure=figure, why="as on the other system")


# -- who a process is


class Identity(NamedTuple):
    """Of our parent: its start token under two time zones; the boot; milliseconds for the slowest look."""

    tokens: tuple[str, str]
    boot: str
    slowest_ms: float


def _measure_identity(_: Bench) -> Identity:
    """Look twice, from two time zones."""
    begun = time.monotonic()
    boot = kernel.boot_id()
    slowest, tokens, before = time.monotonic() - begun, [], os.environ.get("TZ")
    try:
        for zone in ("UTC0", "JST-9"):
            os.environ["TZ"] = zone
            time.tzset()
            begun = time.monotonic()
            status = kernel.process_status(os.getppid() or os.getpid())
            slowest = max(slowest, time.monotonic() - begun)
            tokens.append(status[1] if status else "")
    finally:
        os.environ.pop("TZ")
        os.environ.update({"TZ": before} if before is not None else {})
        time.tzset()
    return Identity((tokens[0], tokens[1]), boot, slowest * 1000)


def _judge_identity(found: Identity) -> Outcome:
    """A broker that lives must never count as dead."""
    figure = f"start {found.tokens[0] or '?'}, boot {found.boot[:8] or '?'}, {found.slowest_ms:.1f} ms"
    if not all(found.tokens) or not found.boot:
        return Outcome(Verdict.FAILED, figure, "a process can't be told from a later one with its pid")
    if found.tokens[0] != found.tokens[1]:
        return Outcome(
            Verdict.FAILED, figure, f"in another time zone it began {found.tokens[1]}: it would count as dead"
        )
    if found.slowest_ms > _SLOW_MS:
        return Outcome(Verdict.DIFFERS, figure, "a look takes that long")
    return Outcome(Verdict.OK, figure)


CHECKS: tuple[Check, ...] = (
    Check("send without waiting", _measure_send, _judge_send),
    Check("hang-ups", _measure_hangups, _judge_hangups),
    Check("full backlog", _measure_backlog, _judge_backlog),
    Check("process identity", _measure_identity, _judge_identity),
)
