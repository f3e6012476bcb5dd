"""The ids in a stored index, from files that anybody who reaches the palace may have written.

index_metadata.pickle holds plain values. A pickle can do much more than that: run code, ask for memory without having
the bytes, nest values until comparing them takes for ever. So its operations are looked at first, and only those that
make plain values are carried out.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..system.shared_files import SharedFolder

META = "index_metadata.pickle"
HEADER = "header.bin"
MOST_BYTES = 512 << 20  # of the metadata: some ten million entries
_HEADER = struct.Struct("<iQQQ")  # of hnswlib: version, offset of level 0, capacity, number of elements

# operations of a pickle that make plain values -> bytes of their argument
_FIXED = {
    **dict.fromkeys(b"(.Nsuae\x88\x89\x94", 0),  # marks, stop, None, items, booleans, memoize
    **dict.fromkeys(b"\x80Kqh", 1),  # protocol, small integer, put into and get from the memo
    **dict.fromkeys(b"M", 2),
    **dict.fromkeys(b"Jrj", 4),
    **dict.fromkeys(b"G\x95", 8),  # float, frame
}
_COUNTED = {**dict.fromkeys(b"\x8cC\x8a", 1), **dict.fromkeys(b"XB", 4), ord("\x8d"): 8}  # -> bytes of their length
_COLLECTIONS = b"}]"  # an empty dict, an empty list: one byte, for which Python takes a hundred
_MOST_COLLECTIONS = 1000  # an index has a handful
_STOP, _LONG_PUT, _LONG = ord("."), ord("r"), 0x8A
_LONGEST_NUMBER = 16  # bytes


class Torn(Exception):
    """The index was not stored completely; the text says why."""


class UnknownFormat(Exception):
    """The index has a format that we don't know: it is left alone."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values; refuses anything else instead of running it."""

    def find_class(self, module: str, name: str) -> Any:
        raise UnknownFormat(f"{module}.{name} in {META}")


def read_ids(index: SharedFolder) -> set[str]:
    """The ids in a stored index.

    Raises:
        Torn: it was not stored completely.
        UnknownFormat: it has another format.
        OSError: it can't be read, or is not made of regular files of a trusted owner.
    """
    found = index.look(META)
    if found is not None and found.st_size > MOST_BYTES:  # it may claim any size; not a byte of that is read
        raise UnknownFormat(f"{META} is longer than {MOST_BYTES} bytes")
    data = index.read(META, MOST_BYTES)
    if data is None:
        raise Torn(f"there is no {META}")
    ids, total = parse_metadata(data)
    head = index.read(HEADER, _HEADER.size) or b""
    if len(head) < _HEADER.size:
        raise Torn(f"{HEADER} is too short")
    version, _, _, count = _HEADER.unpack(head[: _HEADER.size])
    if version == 1 and count != total:
        raise Torn(f"{HEADER} counts {count} elements, {META} {total}")
    return ids


def parse_metadata(data: bytes) -> tuple[set[str], Any]:
    """The ids, and the number of elements ever added.

    Raises:
        Torn, UnknownFormat: as `read_ids`.
    """
    check_plain(data)
    try:
        meta = _PlainUnpickler(io.BytesIO(data)).load()
        labels, total = meta["id_to_label"], meta["total_elements_added"]
        ids = set(labels)
    except Exception as exc:  # whatever a forged pickle makes of plain operations
        raise Torn(f"{META}: {type(exc).__name__}: {exc}") from exc
    if not all(isinstance(id_, str) for id_ in ids):
        raise UnknownFormat(f"an id in {META} is not text")
    return ids, total


def check_plain(data: bytes) -> None:
    """Look at each operation of a pickle without carrying it out.

    Raises:
        Torn: it ends early, or is not a pickle. UnknownFormat: it has an operation that makes more than plain values.
    """
    fixed, counted, end = _FIXED, _COUNTED, len(data)
    at = collections = 0
    if data[:1] != b"\x80":
        raise Torn(f"{META} is empty or not a pickle")
    while at < end:
        operation = data[at]
        at += 1
        width = fixed.get(operation)
        if width is not None:
            if operation == _LONG_PUT and int.from_bytes(data[at : at + 4], "little") > end:
                raise UnknownFormat(f"{META} asks for more memory than it has entries")
            at += width
            if operation == _STOP:
                return
        elif operation in counted:
            width = counted[operation]
            length = int.from_bytes(data[at : at + width], "little")
            if operation == _LONG and length > _LONGEST_NUMBER:
                raise UnknownFormat(f"{META} has a number of {length} bytes")
            at += width + length
        elif operation in _COLLECTIONS:
            collections += 1
            if collections > _MOST_COLLECTIONS:
                raise UnknownFormat(f"{META} has more than {_MOST_COLLECTIONS} collections")
        elif operation == 0:
            raise Torn(f"{META} was not written to its end")
        else:
            raise UnknownFormat(f"operation {operation:#04x} in {META}")
    raise Torn(f"{META} ends early")
