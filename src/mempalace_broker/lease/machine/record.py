"""The bytes of one lease: a fixed-size record, written in place, never renamed. The theory stands in lease.py.

    magic 8 | version 2 | length 2 | epoch 8 | sequence 8 | state 1 | busy 1 | JSON, padded | crc32 4    512 in all

It fits into one page of one file: a reader gets the old record, the new one or (once in 360,000 reads across a kernel
boundary) a mixture, which the checksum detects. The JSON says who wrote the record and stays the same from write to
write, so a change of the busy flag, which every call waits for, costs a microsecond.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, NamedTuple

from ...protocol.jsonrpc import whole_number
from .lease import LeaseState, Listing, NodeKind

SIZE = 512
VERSION = 1
_MAGIC = b"mpbclaim"
_HEAD = struct.Struct("<8sHHQQBB")
_TAIL = struct.Struct("<I")
_ROOM = SIZE - _HEAD.size - _TAIL.size
_MAX_HOST = 64
_MAX_PID = 2**31 - 1
_MAX_SECONDS = 2**33
# by their numbers in the file
WRITTEN_STATES = (LeaseState.ACQUIRING, LeaseState.ACTIVE, LeaseState.RELEASED)


class HolderId(NamedTuple):
    """Which broker holds a lease, for proofs and for people.

    Attributes:
        kind: on which side of the boundary it runs. host: that machine's name.
        boot, pid, pidns: as in system/process_ids.
        lock, palace: "dev:ino" of broker.lock and of the folder that it is in, as its kernel sees them: equal boot and
            lock mean one lock for both.
        since: seconds since 1970 by its own clock; only for people.
        nonce: random, so that two holders are never taken for one.
    """

    kind: NodeKind = NodeKind.HOST
    host: str = ""
    boot: str = ""
    pidns: str = ""
    pid: int = 0
    lock: str = ""
    since: float = 0.0
    nonce: str = ""
    palace: str = ""

    def encode(self) -> bytes:
        """The part of the record that stays the same."""
        raw = self._replace(host=self.host[:_MAX_HOST])._asdict()
        body = json.dumps(raw, separators=(",", ":")).encode("ascii")
        if len(body) > _ROOM:
            raise ValueError(f"a lease of {len(body)} bytes does not fit into {_ROOM}")
        return body


class LeaseRecord(NamedTuple):
    """One lease as its file says."""

    epoch: int
    state: LeaseState = LeaseState.ACQUIRING
    sequence: int = 0
    busy: bool = False
    holder: HolderId = HolderId()

    def is_resolved(self, listing: Listing) -> bool:
        """Whether its holder will never write again, as far as names and records tell."""
        return self.state.is_final or (self.epoch, self.sequence) in listing.gone


def encode(epoch: int, state: LeaseState, sequence: int, *, busy: bool, holder: bytes) -> bytes:
    """The record's SIZE bytes. `holder`: `HolderId.encode`."""
    head = _HEAD.pack(_MAGIC, VERSION, len(holder), epoch, sequence, WRITTEN_STATES.index(state), busy)
    data = head + holder.ljust(_ROOM)
    return data + _TAIL.pack(zlib.crc32(data))


def decode(data: bytes, epoch: int) -> LeaseRecord:
    """Read a record from any bytes; never raises.

    Nothing, or only zeros, is EMPTY: its holder created the name and has not written yet. It can't have opened the
    palace, because it writes its busy flag first.
    """
    if not data.strip(b"\0"):
        return LeaseRecord(epoch, LeaseState.EMPTY)
    try:
        return _decode(data, epoch)
    except (ValueError, TypeError, LookupError, RecursionError):
        return LeaseRecord(epoch, LeaseState.UNREADABLE)


def _decode(data: bytes, epoch: int) -> LeaseRecord:
    if len(data) != SIZE or _TAIL.unpack(data[-_TAIL.size :])[0] != zlib.crc32(data[: -_TAIL.size]):
        raise ValueError("torn")
    magic, _, length, named, sequence, state, busy = _HEAD.unpack(data[: _HEAD.size])
    raw = json.loads(data[_HEAD.size : _HEAD.size + length])
    if magic != _MAGIC or named != epoch:
        raise ValueError("not a lease of this epoch")
    if not isinstance(raw, dict):
        raise ValueError("it names no holder")
    holder = HolderId(
        kind=NodeKind(raw["kind"]),
        host=_text(raw, "host"),
        boot=_text(raw, "boot"),
        pidns=_text(raw, "pidns"),
        pid=_pid(raw["pid"]),
        lock=_text(raw, "lock"),
        palace=_text(raw, "palace") if "palace" in raw else "",
        since=_seconds(raw["since"]),
        nonce=_text(raw, "nonce"),
    )
    return LeaseRecord(epoch, WRITTEN_STATES[state], sequence, bool(busy), holder)


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str):
        raise ValueError(f"its {name} is not text")
    return value


def _pid(value: object) -> int:
    pid = whole_number(value, 0, _MAX_PID)
    if pid is None:
        raise ValueError("not a process id")
    return pid


def _seconds(value: object) -> float:
    """A time that people can be shown; 0.0 for any other number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("not a time")
    return float(value) if 0 <= value < _MAX_SECONDS else 0.0


def is_copied(theirs: HolderId, me: HolderId) -> bool:
    """Whether a host's lease was made in another folder than ours, of which ours is a copy or a backup."""
    if not theirs.boot or theirs.boot != me.boot or not (theirs.palace and me.palace):
        return False
    return theirs.kind is NodeKind.HOST and me.kind is NodeKind.HOST and theirs.palace != me.palace


def proven_dead(lease: LeaseRecord, me: HolderId, *, local: bool) -> bool:
    """Whether the lease's broker is dead by a fact of the kernel. Only the holder of broker.lock may ask.

    Equal boot id and equal lock file: that broker had the very lock that we hold now, so it is gone. (An equal boot id
    alone proves nothing: a FUSE mount has locks of its own.) A lease that came with a copy was never this palace's.
    And one host has the palace on its own disk: a host's lease of another boot was made before that host was restarted,
    or on the machine that the palace was brought from.

    Args:
        local: whether the palace is known to be on a disk of this very machine; if not, the machine's name decides.
    """
    theirs = lease.holder
    if not theirs.boot or not me.boot or theirs.nonce == me.nonce:
        return False
    if theirs.boot == me.boot:
        return (bool(me.lock) and theirs.lock == me.lock) or (local and is_copied(theirs, me))
    return (
        theirs.kind is NodeKind.HOST
        and me.kind is NodeKind.HOST
        and (local or (bool(me.host) and theirs.host == me.host))
    )
