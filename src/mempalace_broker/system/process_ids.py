"""Who a process is beyond its pid: start token, boot id, pid namespace.

A pid alone proves nothing: it is reused, it means another process in another container, and none after a reboot. Two
ids are comparable only under an equal boot id and pid namespace; otherwise the answer is "unknown". "Dead" is said only
of a process that is proved dead. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from .kernel import boot_id, is_free, process_status


class ProcessState(str):
    """Whether a process lives, as far as that is known."""

    __slots__ = ()


ALIVE = ProcessState("alive")
DEAD = ProcessState("dead")
ZOMBIE = ProcessState("zombie")  # ended, not yet reaped: holds no lock and no file any more
UNKNOWN = ProcessState("unknown")

_MAX_PID = 2**31 - 1
_FIRST_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO


class ProcessId:
    """One process: `start` is its start token ("" = not known); `boot`, `pidns`: where the pid counts."""

    __slots__ = ("boot", "pid", "pidns", "start")

    FIELDS = ("pid", "start", "boot", "pidns")  # their names in lock files and records

    def __init__(self, pid: int, start: str, boot: str, pidns: str) -> None:
        self.pid = pid
        self.start = start
        self.boot = boot
        self.pidns = pidns

    def __repr__(self) -> str:
        """For logs."""
        return f"ProcessId({self.pid}, {self.start!r}, {self.boot!r}, {self.pidns!r})"

    def __eq__(self, other: object) -> bool:
        """Equal in all four parts."""
        if not isinstance(other, ProcessId):
            return NotImplemented
        return (self.pid, self.start, self.boot, self.pidns) == (
            other.pid,
            other.start,
            other.boot,
            other.pidns,
        )

    def __hash__(self) -> int:
        """Hash of the four parts."""
        return hash((self.pid, self.start, self.boot, self.pidns))


def this_process() -> ProcessId:
    """This process."""
    return process_of(os.getpid())


def process_of(pid: int) -> ProcessId:
    """The process that has `pid` here and now; its `start` is empty if it can't be told."""
    return ProcessId(pid, _look(pid)[1], boot_id(), pid_namespace())


def process_state(who: ProcessId) -> ProcessState:
    """Whether it is alive."""
    if not 0 < who.pid <= _MAX_PID:
        return DEAD
    if who.boot != boot_id() or who.pidns != pid_namespace():
        return UNKNOWN
    seen, start = _look(who.pid)
    if seen in (DEAD, UNKNOWN):
        return seen
    if not start or not who.start:
        return UNKNOWN  # some process has that number; nothing says it is this one
    return seen if start == who.start else DEAD


def pid_namespace() -> str:
    """The name space in which our pids count; "" where there is only one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def in_child_namespace() -> bool:
    """Whether this process is in another pid namespace than the first of its kernel, as in a container."""
    return pid_namespace() not in ("", _FIRST_NAMESPACE)


def _look(pid: int) -> tuple[ProcessState, str]:
    """(state, start token)."""
    status = process_status(pid)
    if status is None:
        return DEAD if is_free(pid) else UNKNOWN, ""
    state, start = status
    if not start:
        return UNKNOWN, ""
    return (ZOMBIE if state in "ZXx" else ALIVE), start
