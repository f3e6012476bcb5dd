"""What the holders of locks write into their lock files, for others to read. It proves nothing: only the lock does.

    broker.lock         OwnerNote: the broker's process, its epoch, where it listens
    engine.lock         a ProcessId: the engine
    broker.start.lock   the pid of the client that starts a broker, in digits

`mp-shim` imports this module where it finds no broker: keep it lean.
"""

from __future__ import annotations

from ..protocol.jsonrpc import load_object, to_bytes
from .kernel import file_id
from .lock import read_body
from .process_ids import ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .lock import FileLock

_PID_DIGITS = 10
_MAX_NUMBER = 1 << 53


def read_note(path: str) -> dict[str, Any]:
    """The JSON object in a lock file; empty where there is none, or where it was written into another lock file, of
    which this is a copy.
    """
    return _own_note(path, read_body(path))


def read_pid(path: str) -> int:
    """The pid in the note in a lock file, 0 where there is none."""
    return _number(read_note(path).get("pid"))


def write_note(lock: FileLock, note: dict[str, Any]) -> None:
    """Replace the note in a lock that we hold. Raises StateRootError where it can't be written."""
    lock.write_body(to_bytes({**note, "lock": file_id(lock.fd)}))


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
        """What the last owner wrote into the lock at `path`, None where no owner ever wrote; invalid fields, and all
        those of a copy, are left empty.
        """
        body = read_body(path)
        if not body:
            return None
        note = _own_note(path, body)
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


def read_starter(path: str) -> int:
    """The pid in the broker.start.lock at `path`, 0 where there is none. Nothing else in it is looked at."""
    body = read_body(path)
    return int(body) if len(body) <= _PID_DIGITS and body.isdigit() else 0


def write_starter(lock: FileLock, pid: int) -> None:
    """Write who starts a broker into broker.start.lock, which we hold. Raises StateRootError where it can't be
    written.
    """
    lock.write_body(b"%d" % pid)


def _own_note(path: str, body: bytes) -> dict[str, Any]:
    note, here = load_object(body), file_id(path)
    return note if note.get("lock", here) == here else {}


def _process(note: dict[str, Any]) -> ProcessId | None:
    pid, start, boot, pidns = (note.get(name) for name in ProcessId.FIELDS)
    if not _number(pid) or not (isinstance(start, str) and isinstance(boot, str) and isinstance(pidns, str)):
        return None
    return ProcessId(_number(pid), start, boot, pidns)


def _words(process: ProcessId) -> dict[str, Any]:
    return {name: getattr(process, name) for name in ProcessId.FIELDS}


def _number(value: object) -> int:
    return value if type(value) is int and 0 < value < _MAX_NUMBER else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
