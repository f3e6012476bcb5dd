"""The bytes of one claim: a fixed-size record, written in place, never renamed. The theory stands in claims.py.

    magic 8 | version 2 | length 2 | generation 8 | sequence 8 | state 1 | busy 1 | JSON, padded | crc32 4    512 in all

One page of one file: a reader gets the old record, the new one or (once in 360,000 reads across a kernel boundary) a
mixture, which the checksum tells. The JSON says who wrote it and does not change from write to write: a change of the
busy flag, which every call waits for, costs a microsecond.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import NamedTuple

from .lease import CLAIMING, EMPTY, HOST, KINDS, STATES, UNREADABLE

SIZE = 512
VERSION = 1
_MAGIC = b"mpbclaim"
_HEAD = struct.Struct("<8sHHQQBB")
_TAIL = struct.Struct("<I")
_ROOM = SIZE - _HEAD.size - _TAIL.size
_MAX_HOST = 64


class Writer(NamedTuple):
    """Who claims, for proofs and for people.

    Attributes:
        kind: "host" or "foreign". host: its name. boot, pid, pidns: as in system/process_ids.
        lock: "dev:ino" of broker.lock as its kernel sees it: equal boot and lock mean one lock for both.
        since: seconds since 1970 by its own clock; only for people.
        nonce: random, so that two writers are never taken for one.
    """

    kind: str = HOST
    host: str = ""
    boot: str = ""
    pidns: str = ""
    pid: int = 0
    lock: str = ""
    since: float = 0.0
    nonce: str = ""

    def encode(self) -> bytes:
        """The part of the record that stays."""
        raw = self._replace(host=self.host[:_MAX_HOST])._asdict()
        body = json.dumps(raw, separators=(",", ":")).encode("ascii")
        if len(body) > _ROOM:
            raise ValueError(f"a claim of {len(body)} bytes does not fit into {_ROOM}")
        return body


class Claim(NamedTuple):
    """One record as it stands in the file; `state` EMPTY: created, nothing written yet; UNREADABLE: never whole."""

    generation: int
    state: str = CLAIMING
    sequence: int = 0
    busy: bool = False
    writer: Writer = Writer()


def encode(generation: int, state: str, sequence: int, *, busy: bool, writer: bytes) -> bytes:
    """The record's SIZE bytes. `writer`: `Writer.encode`."""
    head = _HEAD.pack(_MAGIC, VERSION, len(writer), generation, sequence, STATES.index(state), busy)
    data = head + writer.ljust(_ROOM)
    return data + _TAIL.pack(zlib.crc32(data))


def decode(data: bytes, generation: int) -> Claim:
    """Read a record from any bytes; never raises.

    Nothing, or only zeros, is EMPTY: its writer created the name and has not written yet. It can't have opened the
    palace, because it writes its busy flag first.
    """
    if not data.strip(b"\0"):
        return Claim(generation, EMPTY)
    try:
        return _decode(data, generation)
    except (ValueError, TypeError, LookupError, RecursionError):
        return Claim(generation, UNREADABLE)


def _decode(data: bytes, generation: int) -> Claim:
    if len(data) != SIZE or _TAIL.unpack(data[-_TAIL.size :])[0] != zlib.crc32(data[: -_TAIL.size]):
        raise ValueError("torn")
    magic, _, length, named, sequence, state, busy = _HEAD.unpack(data[: _HEAD.size])
    raw = json.loads(data[_HEAD.size : _HEAD.size + length])
    if magic != _MAGIC or named != generation or raw["kind"] not in KINDS:
        raise ValueError("no claim of this generation")
    writer = Writer(
        kind=raw["kind"],
        host=str(raw["host"]),
        boot=str(raw["boot"]),
        pidns=str(raw["pidns"]),
        pid=int(raw["pid"]),
        lock=str(raw["lock"]),
        since=float(raw["since"]),
        nonce=str(raw["nonce"]),
    )
    return Claim(generation, STATES[state], sequence, bool(busy), writer)


def proven_dead(claim: Claim, me: Writer, *, local: bool) -> bool:
    """Whether the claim's broker is dead by a fact of the kernel. Only for one who holds broker.lock.

    Equal boot id and equal lock file: that broker had the very lock that we hold now, so it is gone. (An equal boot id
    alone proves nothing: a FUSE mount has locks of its own.) And one host has the palace on its own disk: a host's
    claim of another boot was made before that host was started anew.

    Args:
        local: whether the palace is known to be on a disk of this very machine; if not, its name has to do.
    """
    theirs = claim.writer
    if not theirs.boot or not me.boot or theirs.nonce == me.nonce:
        return False
    if theirs.boot == me.boot:
        return bool(me.lock) and theirs.lock == me.lock
    return theirs.kind == HOST and me.kind == HOST and (local or (bool(me.host) and theirs.host == me.host))
