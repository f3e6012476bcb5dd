"""The discovery record's file, broker.json: read, published and removed here and nowhere else.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..protocol.record import MAX_BYTES, BadRecord, DiscoveryRecord, decode, encode, is_own
from .atomic_files import read_bytes, remove_if, remove_temp_files, write_atomic


class RecordFile:
    """One broker.json, at `path`."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> DiscoveryRecord | BadRecord:
        """The record, or what is wrong with it. Never raises."""
        try:
            return decode(read_bytes(self.path, MAX_BYTES))
        except OSError as exc:
            return BadRecord(f"the record can't be read: {exc.strerror or exc}")

    def publish(self, record: DiscoveryRecord) -> None:
        """Put `record` in place of whatever is there. For the palace's owner. Raises OSError as the system reports."""
        write_atomic(self.path, encode(record))

    def holds(self, record: DiscoveryRecord) -> bool:
        """Whether the file still is this record. Raises OSError where it can't be read."""
        return is_own(read_bytes(self.path, MAX_BYTES) or b"", record.record)

    def remove(self, record: DiscoveryRecord) -> bool:
        """Remove the file while it is this record; whether this call did. Raises OSError as the system reports."""
        return remove_if(self.path, lambda data: is_own(data, record.record))

    def remove_temp_files(self) -> int:
        """Remove the temp files that killed writers left beside it, and count them. For the palace's owner."""
        return remove_temp_files(self.path)
