"""The discovery record broker.json: its fields, and how to read a file that may hold anything.

A record is a hint where to dial. It proves nothing: neither that its process lives nor that it owns the palace.
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from .jsonrpc import load, shown, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
MAX_BYTES = 64 * 1024
_MAX_PID = 2**31 - 1
_LARGEST = 2**63  # number
_MAX_ENDPOINTS = 16

_TEXTS = ("record", "start", "boot", "pidns", "host", "lock", "broker_version", "engine_version", "started_by")


class DiscoveryRecord:
    """One broker's record. Times are wall-clock seconds.

    Attributes:
        record: id of this record, 32 hex digits; a broker removes the file only while it holds this id.
        epoch: grows with every owner of the palace.
        guest: whether that process runs in a container.
        pid, start, boot, pidns: the broker's process. host: for people, and to recognise a reboot.
        endpoints: where to dial, best first, as "unix:/path". token: for a TCP endpoint, else None.
        wire: version of the wire protocol. capabilities: names of what the broker can do.
        palace: `PalaceIdentity.as_json`. lock: "dev:ino" of its broker.lock, as the broker's kernel sees it.
        broker_version, engine_version ("" while unknown), started_at, started_by.
    """

    def __init__(
        self,
        *,
        record: str,
        pid: int,
        endpoints: list[str],
        palace: dict[str, str | None],
        epoch: int = 0,
        start: str = "",
        boot: str = "",
        pidns: str = "",
        host: str = "",
        lock: str = "",
        token: str | None = None,
        wire: int = 0,
        capabilities: list[str] | None = None,
        broker_version: str = "",
        engine_version: str = "",
        started_at: float = 0.0,
        started_by: str = "",
        guest: bool = False,
    ) -> None:
        self.record = record
        self.epoch = epoch
        self.pid = pid
        self.start = start
        self.boot = boot
        self.pidns = pidns
        self.host = host
        self.lock = lock
        self.endpoints = endpoints
        self.token = token
        self.wire = wire
        self.capabilities = capabilities or []
        self.palace = palace
        self.broker_version = broker_version
        self.engine_version = engine_version
        self.started_at = started_at
        self.started_by = started_by
        self.guest = guest

    def as_json(self) -> dict[str, Any]:
        """The record as the file holds it."""
        return {"schema": SCHEMA, **vars(self)}

    def __eq__(self, other: object) -> bool:
        """Equal in every field."""
        if not isinstance(other, DiscoveryRecord):
            return NotImplemented
        return self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]  # mutable


class BadRecord:
    """A record that can't be used: `reason` says why; `absent` whether there is no file at all."""

    __slots__ = ("absent", "reason")

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        self.reason = reason
        self.absent = absent


def encode(record: DiscoveryRecord) -> bytes:
    """Return the file's bytes: JSON, one field a line, so that people can read it too."""
    import json

    return json.dumps(record.as_json(), indent=1, sort_keys=True).encode("ascii") + b"\n"


def decode(data: bytes | None) -> DiscoveryRecord | BadRecord:
    """Read a record from any bytes; None stands for a missing file. Never raises.

    Endpoints, pid and palace are required. Fields of later schemas are ignored, so that an older client still finds
    the endpoint; hello decides whether the two can talk.
    """
    if data is None:
        return BadRecord("there is no record", absent=True)
    if not data.strip():
        return BadRecord("the record is empty")
    if len(data) > MAX_BYTES:
        return BadRecord(f"the record is longer than {MAX_BYTES} bytes")
    try:
        raw = load(data)
    except ValueError:
        return BadRecord("the record is not JSON")
    if not isinstance(raw, dict):
        return BadRecord("the record is not a JSON object")
    return _check(raw)


def _check(raw: dict[str, Any]) -> DiscoveryRecord | BadRecord:
    """Check field by field; a wrong optional field counts as missing."""
    if whole_number(raw.get("schema"), 1, _LARGEST) is None:
        return BadRecord("the record names no schema")
    pid = whole_number(raw.get("pid"), 1, _MAX_PID)
    if pid is None:
        return BadRecord(f"the record has the impossible pid {shown(str(raw.get('pid')), 40)}")
    endpoints = [e for e in _list(raw.get("endpoints")) if isinstance(e, str) and e][:_MAX_ENDPOINTS]
    if not endpoints:
        return BadRecord("the record names no endpoint")
    palace = raw.get("palace")
    if not isinstance(palace, dict) or not isinstance(palace.get("path"), str):
        return BadRecord("the record names no palace")
    texts = {name: value for name in _TEXTS if isinstance(value := raw.get(name), str)}
    token = raw.get("token")
    return DiscoveryRecord(
        record=texts.pop("record", ""),
        pid=pid,
        endpoints=endpoints,
        palace={str(k): v for k, v in palace.items() if v is None or isinstance(v, str)},
        epoch=whole_number(raw.get("epoch"), 0, _LARGEST) or 0,
        token=token if isinstance(token, str) else None,
        wire=whole_number(raw.get("wire"), 0, _LARGEST) or 0,
        capabilities=[c for c in _list(raw.get("capabilities")) if isinstance(c, str)],
        started_at=_seconds(raw.get("started_at")),
        guest=raw.get("guest") is True,
        **texts,
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _seconds(value: object) -> float:
    """A finite, sane time stamp, else 0.0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return 0.0
    return float(value)


def is_own(data: bytes, record_id: str) -> bool:
    """Whether these bytes of a record file are the record with this id; only then may its owner remove the file."""
    found = decode(data)
    return isinstance(found, DiscoveryRecord) and bool(record_id) and found.record == record_id


def from_this_kernel(record: DiscoveryRecord, *, boot: str, host: str, pidns: str, local: bool | None) -> bool:
    """Whether the record's writer ran on this kernel, so that connect() and locks mean something; by facts only.

    Another boot id means an earlier boot of this machine, or another kernel that sees the same files. It is an
    earlier boot if the host has the same name, or if no other kernel can have mounted the filesystem.

    Args:
        boot, host, pidns: this process's.
        local: whether the state root's filesystem is known to be local, None if not known.
    """
    both_macs = not pidns and not record.pidns  # the other kernel of a Mac is a Linux one, and has namespaces
    return bool((boot and record.boot == boot) or (host and record.host == host) or both_macs or local)
