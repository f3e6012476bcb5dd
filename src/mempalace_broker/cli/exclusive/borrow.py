"""Gets the palace for a command: the broker's engine ends, and engine.lock is ours.

a broker answers      it is asked (broker/exclusive), and grants once its engine is gone
no broker             the locks are taken without one; the lease says "busy", as if a broker had died at work, so that
                      no other kernel opens the palace, while a broker of this one may start and wait for the lock
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any, TypeVar

from ...doctor.open_files import find_open_files
from ...errors import NOT_EXECUTED, BrokerUnavailable, PalaceHeld
from ...lease.machine.hold import Holding
from ...lease.machine.lease import Verb
from ...locality.locality import locate
from ...protocol.hello import EXCLUSIVE
from ...protocol.jsonrpc import load_object
from ...protocol.write_lock import FOLDER, lock_name, read_note
from ...system.clock import Deadline
from ...system.command_note import command_at_work, read_command, write_command
from ...system.lock import FileLock, is_held, read_body
from ...system.lock_notes import read_pid
from ...system.paths import home_of
from ...system.pending_restore import finish_restore

if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from collections.abc import Callable, Iterator, Sequence

    from ...lease.acquire import AcquiredLease
    from ...lease.machine.hold import LeaseHolder
    from ...system.clock import Clock
    from ...system.paths import Context

T = TypeVar("T")
TAKE_S = 8.0  # to take engine.lock once it was granted; the broker waits a little longer
PAUSE_S = 4.0  # from the answer on; the broker's own time runs from its grant, and is a little longer
ANSWER_S = 5.0  # for the broker's refusal, after it waited in vain
_LOOK_S = 0.1
"""Between two looks at what sends no event: a lock that is released, a file that is closed."""


class Loan:
    """The palace, lent to a command: the locks that it inherits. Some commands replace the palace's folder with
    engine.lock in it; the other lock lies elsewhere.
    """

    def __init__(self, locks: Sequence[FileLock]) -> None:
        self.locks = locks
        # an engine's note; of a command that was killed nothing is kept
        self._before = [b"" if read_command(lock.path) else read_body(lock.path) for lock in locks]

    def say(self, pid: int, command: Sequence[str], since: float) -> None:
        """Write into the locks which command has them."""
        for lock in self.locks:
            write_command(lock, pid, command, since)

    def settle(self) -> None:
        """Write into the locks what was there before."""
        for lock, body in zip(self.locks, self._before, strict=True):
            lock.write_body(body)


class Borrower:
    """One attempt to get the palace for `command`."""

    def __init__(self, context: Context, command: Sequence[str], wait_s: float) -> None:
        self._context = context
        self._command = command
        self._wait_s = wait_s
        self._why = ""

    @contextlib.contextmanager
    def borrow(self, deadline: Deadline) -> Iterator[Loan]:
        """Get the palace until the block ends.

        Raises:
            PalaceHeld: it was not free in time; names who has it.
            BrokerUnavailable: the broker does not answer, or can't lend it from here.
            StateRootError: locks or leases can't be used.
        """
        refuse_elsewhere(self._context)
        self._context.files.prepare()
        with contextlib.ExitStack() as stack:
            loan = self._until(deadline, lambda: self._attempt(deadline, stack))
            self._wait_for_others(deadline)
            finish_restore(self._context.files.restore)
            yield loan

    @contextlib.contextmanager
    def pause(self, deadline: Deadline) -> Iterator[float]:
        """Nobody writes until the block ends, which has to be within PAUSE_S of the monotonic time that it
        gets. Raises as `borrow`.
        """
        refuse_elsewhere(self._context)
        engine_lock = self._context.files.engine_lock
        self._wait_for_others(deadline, but=read_pid(engine_lock))  # the second look takes half as long as the first
        with contextlib.ExitStack() as stack:
            self._until(deadline, lambda: self._attempt(deadline, stack, pause=True))
            began = self._context.clock.monotonic()  # not later: to look for others takes a while, too
            if who := other_opener(self._context, but=read_pid(engine_lock)):
                raise self._too_late(who)
            yield began

    def _until(self, deadline: Deadline, attempt: Callable[[], T | None]) -> T:
        while (got := attempt()) is None:
            if deadline.expired:
                raise self._too_late(self._why)
            self._context.clock.sleep(min(_LOOK_S, deadline.remaining()))
        return got

    def _too_late(self, who: str) -> PalaceHeld:
        return PalaceHeld(
            f"{self._context.identity.path} was not free within {self._wait_s:g} s: {who}.",
            hint="let it finish, or wait longer: --wait",
        )

    def _attempt(self, deadline: Deadline, stack: contextlib.ExitStack, *, pause: bool = False) -> Loan | None:
        from ...route.ask import socket_paths
        from ...route.dial import dial_any
        from ...route.discover import fixed_endpoint

        command = command_at_work(self._context.files)
        if command:
            self._why = f"{command}, has it for itself"
            return None  # the agents' calls get a turn between two commands
        dialled = dial_any(socket_paths(self._context), named=fixed_endpoint(self._context.env) is not None)
        if dialled.sock is not None:
            with contextlib.ExitStack() as connected:
                connected.callback(dialled.sock.close)
                if not self._is_granted(dialled.sock, dialled.path, deadline, pause=pause):
                    return None
                if pause:
                    stack.push(connected.pop_all())
                    return Loan([])
                return self._take_lock(stack)
        if is_held(self._context.files.owner_lock):
            self._why = f"a broker owns it, and does not answer ({dialled.why})"
            return None
        return self._without_broker(stack)

    # -- from a broker

    def _is_granted(self, sock: RawSocket, path: str, deadline: Deadline, *, pause: bool) -> bool:
        """Ask on this connection; what is granted ends with it."""
        from ...route.ask import about
        from ...route.exchange import exchange
        from ...system.unix_socket import peer_process

        if peer_process(sock).inside:
            raise BrokerUnavailable(
                "the broker runs in a container, and its palace can't be lent to a command out here.",
                hint="run this in that container, or `mempalace-broker restart` to have the broker here",
            )
        params = {"wait_s": deadline.remaining(), "pause": pause, **about(self._context)}
        request = {"jsonrpc": "2.0", "id": EXCLUSIVE, "method": EXCLUSIVE, "params": params}
        patience = Deadline.after(self._context.clock, deadline.remaining() + ANSWER_S)
        try:
            line = exchange(sock, json.dumps(request).encode() + b"\n", patience)
        except OSError:
            line = b""
        if line is None:
            raise BrokerUnavailable(f"{path} accepts but does not answer.", hint="mempalace-broker stop --now")
        answer = load_object(line)
        if isinstance(answer.get("error"), dict):
            raise self._refused(answer["error"])
        self._why = "its broker was leaving"
        return bool(answer)

    def _take_lock(self, stack: contextlib.ExitStack) -> Loan | None:
        """The loan stands once engine.lock is ours: the broker looks at that lock when our connection is closed."""
        lock = FileLock(self._context.files.engine_lock)
        if not lock.acquire(Deadline.after(self._context.clock, TAKE_S)):
            self._why = "another process took it at the same moment"
            return None
        return self._loan(lock, stack)

    def _refused(self, error: dict[str, Any]) -> BrokerUnavailable | PalaceHeld:
        message = str(error.get("message"))
        if error.get("code") == NOT_EXECUTED:
            return PalaceHeld(f"{message}.", hint="let it finish, or wait longer: --wait")
        what, _, hint = message.partition(" Hint: ")
        return BrokerUnavailable(what, hint=hint or "with another version of the broker: mempalace-broker restart")

    def _loan(self, lock: FileLock, stack: contextlib.ExitStack) -> Loan | None:
        private = self._context.files.private
        locks = [lock] if private.make() else [lock, FileLock(self._context.files.command_lock)]
        if not all(each.held or each.try_acquire() for each in locks):
            self._why = "another command has it for itself"
            lock.close_copy()
            return None
        for each in locks:
            stack.callback(each.close_copy)  # children that still have it keep it
        loan = Loan(locks)
        loan.say(os.getpid(), self._command, self._context.clock.wall())
        return loan

    # -- without one

    def _without_broker(self, stack: contextlib.ExitStack) -> Loan | None:
        files = self._context.files
        owner, lock = FileLock(files.owner_lock), FileLock(files.engine_lock)
        if not owner.try_acquire():
            return None
        try:
            if not lock.try_acquire():
                self._why = "an engine without a broker, or another command, is at work in it"
                return None
            loan = self._loan(lock, stack)
            if loan is not None:
                self._lease(owner, stack)
            return loan
        finally:
            owner.release()

    def _lease(self, owner: FileLock, stack: contextlib.ExitStack) -> None:
        from ...broker.daemon import acquire_lease
        from ...settings_files import PrivateSettings

        context = self._context
        settings = PrivateSettings.read(context.env).broker(context.env, context.identity.path)
        held, _ = acquire_lease(owner, context.files, settings, logging.getLogger(__name__), direct=False)
        stack.callback(held.folder.close)
        holder = _carry_out(held.holder.mark_busy(), held, context.clock)
        if holder.outcome is not Holding.CLEAR:
            raise PalaceHeld(f"{context.identity.path} is not ours: {holder.reason}.", hint="mempalace-broker doctor")
        stack.callback(_release, context, held, holder)

    # -- everybody else

    def _wait_for_others(self, deadline: Deadline, *, but: int = 0) -> None:
        while who := other_opener(self._context, but=but):
            if deadline.expired:
                raise self._too_late(who)
            self._context.clock.sleep(min(_LOOK_S, deadline.remaining()))


def refuse_elsewhere(context: Context) -> None:
    """Raise BrokerUnavailable where the palace's broker is not one of this machine."""
    from ...route.discover import fixed_endpoint
    from ...route.endpoint import UNIX

    fixed, where = fixed_endpoint(context.env), locate(context.files)
    if (fixed is not None and fixed.kind != UNIX) or where.foreign:
        why = where.why if where.foreign else f"$MEMPALACE_BROKER leads to another machine ({fixed})"
        raise BrokerUnavailable(
            f"a command can have the palace for itself only on the machine that has it: {why}.",
            hint="run `mempalace-broker exclusive` there",
        )


def other_opener(context: Context, *, but: int = 0) -> str:
    """A process that has the palace open, or mempalace's own write lock, in words; "" where there is none.

    Args:
        but: the engine, which may.
    """
    identity = context.identity
    for opener in find_open_files(identity.path, identity.graph):
        if opener.pid not in (but, os.getpid()):
            return f"pid {opener.pid} ({opener.command}) has {opener.files[0]} open"
    path = f"{home_of(context.env)}/{FOLDER}/{lock_name(identity.path)}"
    pid, command = read_note(read_body(path))
    if is_held(path) and pid != but:
        return f"pid {pid or 'unknown'} ({command or '?'}) holds mempalace's write lock"
    return ""


def _carry_out(holder: LeaseHolder, held: AcquiredLease, clock: Clock) -> LeaseHolder:
    """Run one operation of a lease that no engine works under."""
    while holder.step is not Verb.DONE:
        action, before = holder.action, clock.elapsed()
        result: Any = action.verb is not Verb.CREATE
        if action.verb is Verb.LIST:
            result = held.folder.listing()
        elif action.verb is Verb.WRITE:
            held.folder.write(action.state, action.sequence, busy=action.busy)
        holder = holder.advance(result, before, clock.elapsed())
    return holder


def _release(context: Context, held: AcquiredLease, holder: LeaseHolder) -> None:
    """Release the lease, unless a broker that came meanwhile has one of its own, or the folder was replaced."""
    owner = FileLock(context.files.owner_lock)
    if os.path.isdir(context.identity.path) and owner.try_acquire():
        try:
            _carry_out(holder.release(), held, context.clock)
        finally:
            owner.release()
