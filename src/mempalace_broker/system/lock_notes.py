"""What the holders of locks write into their lock files, for others to read. It proves nothing: only the lock does.

    broker.lock         OwnerNote: the broker's process, its epoch, where it listens
    engine.lock         a ProcessId: the engine
    broker.start.lock   StartNote: who starts a broker, or why that failed a moment ago

`mp-shim` imports this module where it finds no broker: keep it lean.
"""

from __future__ import annotations

from ..errors import StartFailed
from ..protocol.jsonrpc import load, to_bytes
from .lock import read_body
from .process_ids import ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .lock import FileLock

FAILURE_COUNTS_S = 3.0  # how long those who waited for the same start take its failure for theirs
_MAX_REASON, _MAX_HINT = 2000, 500


def read_note(path: str) -> dict[str, Any]:
    """The JSON object in a lock file; empty where there is none."""
    return _parse(read_body(path))


def write_note(lock: FileLock, note: dict[str, Any]) -> None:
    """Replace the note in a lock that we hold. Raises StateRootError where it can't be written."""
    lock.write_body(to_bytes(note))


def read_holder(path: str) -> ProcessId | None:
    """The process that the note in a lock file names, None where it names none."""
    return _process(read_note(path))


def write_holder(lock: FileLock, holder: ProcessId) -> None:
    """Say which process holds this lock. Raises StateRootError where it can't be written."""
    write_note(lock, _words(holder))


class OwnerNote:
    """The note in broker.lock.

    Attributes:
        epoch: that of the owner's lease, 0 if not known. endpoint: "unix:/path". root: its state root.
        since: the epoch since which all owners have kept the journal in that root.
        process: the broker, None where the note does not say.
    """

    __slots__ = ("endpoint", "epoch", "process", "root", "since")

    def __init__(
        self, process: ProcessId | None, *, epoch: int = 0, endpoint: str = "", root: str = "", since: int = 0
    ) -> None:
        self.process = process
        self.epoch = epoch
        self.endpoint = endpoint
        self.root = root
        self.since = since

    @classmethod
    def read(cls, path: str) -> OwnerNote | None:
        """What the last owner wrote into the lock at `path`, None where no owner ever wrote; invalid fields
        are left empty.
        """
        body = read_body(path)
        if not body:
            return None
        note = _parse(body)
        return cls(
            _process(note),
            epoch=_number(note.get("epoch")),
            endpoint=_text(note.get("endpoint")),
            root=_text(note.get("root")),
            since=_number(note.get("since")),
        )

    def write(self, lock: FileLock) -> None:
        """Replace the note in broker.lock, which we hold. Raises StateRootError where it can't be written."""
        words = _words(self.process) if self.process is not None else {}
        rest = {name: getattr(self, name) for name in ("epoch", "endpoint", "root", "since")}
        write_note(lock, {**words, **rest})


class StartNote:
    """The note in broker.start.lock.

    Attributes:
        pid: of the starter, 0 if not known. at: wall-clock seconds.
        failed: why its start failed, "" while that is not known. hint: what helps.
    """

    __slots__ = ("at", "failed", "hint", "pid")

    def __init__(self, pid: int, at: float, failed: str = "", hint: str = "") -> None:
        self.pid = pid
        self.at = at
        self.failed = failed
        self.hint = hint

    @classmethod
    def read(cls, path: str) -> StartNote:
        """The note in the lock at `path`; invalid fields are left empty."""
        note = read_note(path)
        at = note.get("at")
        at = float(at) if isinstance(at, int | float) else 0.0
        return cls(_number(note.get("pid")), at, _text(note.get("failed")), _text(note.get("hint")))

    def failure(self, now: float) -> StartFailed | None:
        """The failure that it tells, where that was a moment ago. `now`: wall-clock seconds."""
        recent = 0 <= now - self.at < FAILURE_COUNTS_S
        return StartFailed(self.failed, hint=self.hint) if self.failed and recent else None

    def write(self, lock: FileLock) -> None:
        """Replace the note in broker.start.lock, which we hold. Raises StateRootError where it can't be written."""
        note: dict[str, Any] = {"pid": self.pid, "at": self.at}
        if self.failed:
            note |= {"failed": self.failed[:_MAX_REASON], "hint": self.hint[:_MAX_HINT]}
        write_note(lock, note)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        note = load(body or b"{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _process(note: dict[str, Any]) -> ProcessId | None:
    pid, start, boot, pidns = (note.get(name) for name in ProcessId.FIELDS)
    if not _number(pid) or not (isinstance(start, str) and isinstance(boot, str) and isinstance(pidns, str)):
        return None
    return ProcessId(_number(pid), start, boot, pidns)


def _words(process: ProcessId) -> dict[str, Any]:
    return {name: getattr(process, name) for name in ProcessId.FIELDS}


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
