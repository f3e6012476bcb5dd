"""The discovery record's file, broker.json: read, published and removed here and nowhere else.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..protocol.record import MAX_BYTES, BadRecord, DiscoveryRecord, decode, encode, is_own
from .shared_files import SharedFolder


class RecordFile:
    """One broker.json, at `path`."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> DiscoveryRecord | BadRecord:
        """The record, or what is wrong with it. Never raises."""
        try:
            return decode(self._bytes())
        except OSError as exc:
            return BadRecord(f"the record can't be read: {exc.strerror or exc}")

    def publish(self, record: DiscoveryRecord) -> None:
        """Put `record` in place of whatever is there. For the palace's owner. Raises OSError as the system reports."""
        folder, name = os.path.split(self.path)
        with SharedFolder.open(folder) as root:
            root.replace(name, encode(record))

    def holds(self, record: DiscoveryRecord) -> bool:
        """Whether the file still is this record. Raises OSError where it can't be read."""
        return is_own(self._bytes() or b"", record.record)

    def remove(self, record: DiscoveryRecord) -> bool:
        """Remove the file while it is this record; whether this call did. Raises OSError as the system reports it."""
        if not self.holds(record):
            return False
        folder, name = os.path.split(self.path)
        with SharedFolder.open(folder) as root:
            removed = root.remove(name)
            root.sync()
        return removed

    def remove_temp_files(self) -> None:
        """Remove the temp files that killed writers left beside it. For the palace's owner. Raises OSError."""
        folder, name = os.path.split(self.path)
        with SharedFolder.open(folder) as root:
            for entry in root.names():
                if entry.startswith(f".{name}.") and entry.endswith(".tmp"):
                    root.remove(entry)

    def _bytes(self) -> bytes | None:
        """The file's content, at most one byte more than a record may have; None where there is no file."""
        folder, name = os.path.split(self.path)
        try:
            with SharedFolder.open(folder) as root:
                return root.read(name, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
