"""The journal of writes: the engine notes the start and the end of each, so that its outcome is known after a kill.

    S <key>\\n                     about to run it
    E <key> <len>\\n<payload>\\n    it ran; its response; len -1 and no payload: too large to keep

The engine appends, a new broker reads. Half an entry at the end (killed while writing) is dropped; an S without its E
means "outcome unknown". The engine's interpreter runs this module too (Python 3.9).
"""

from __future__ import annotations

KEEP_BYTES = 64 * 1024  # of one response
ROTATE_BYTES = 4 * 1024 * 1024  # of one file; there are two


_START = "S"
_END = "E"


def started(key: str) -> bytes:
    """Entry: the write `key` is about to run."""
    return f"{_START} {key}\n".encode("ascii")


def ended(key: str, response: bytes) -> bytes:
    """Entry: the write `key` ran and was answered with `response`."""
    if len(response) > KEEP_BYTES:
        return f"{_END} {key} -1\n\n".encode("ascii")
    return f"{_END} {key} {len(response)}\n".encode("ascii") + response + b"\n"


def parse(data: bytes) -> tuple[dict[str, bytes | None], set[str]]:
    """Read a journal; lines that mean nothing are passed over.

    Returns:
        ended: key -> response, None if it was too large to keep.
        open: keys that began and have no end.
    """
    done: dict[str, bytes | None] = {}
    begun: set[str] = set()
    pos = 0
    while (entry := _entry_at(data, pos)) is not None:
        kind, key, response, pos = entry
        if kind == _START:
            begun.add(key)
            done.pop(key, None)  # it runs again: the first run's answer is void
        elif kind == _END:
            done[key] = response
            begun.discard(key)
    return done, begun


def whole_length(data: bytes) -> int:
    """Length of the whole entries at the start of a journal; a kill may have left half an entry after them.

    The half entry must go: an entry appended to it could not be read, and its write would count as never begun.
    """
    pos = 0
    while (entry := _entry_at(data, pos)) is not None and entry[0]:
        pos = entry[3]
    return pos


def _entry_at(data: bytes, pos: int) -> tuple[str, str, bytes | None, int] | None:
    """Kind, key, response and end of the entry at `pos`; kind "" if the line means nothing, None if it is not whole."""
    line_end = data.find(b"\n", pos)
    if line_end < 0:
        return None
    words = data[pos:line_end].decode("ascii", "replace").split(" ")
    pos = line_end + 1
    if len(words) == 2 and words[0] == _START:
        return _START, words[1], None, pos
    length = _number(words[2]) if len(words) == 3 and words[0] == _END else None
    if length is None:
        return "", "", None, pos
    end = pos + max(length, 0)
    if data[end : end + 1] != b"\n":
        return None
    return _END, words[1], data[pos:end] if length >= 0 else None, end + 1


def _number(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None
