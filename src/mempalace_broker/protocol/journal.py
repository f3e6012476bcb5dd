"""The journal of writes: what the engine notes around each, so that its outcome can be proved after a kill.

    S <key>\\n                     about to run it
    E <key> <len>\\n<payload>\\n    it ran; the response; len -1 and no payload: too large to keep

The engine appends, a new broker reads. A half entry at the end (killed while writing) is dropped: an S without its
E means "unknown". Runs in the engine's interpreter too (Python 3.9).
"""

from __future__ import annotations

KEEP_BYTES = 64 * 1024  # of one response
ROTATE_BYTES = 4 * 1024 * 1024  # of one file; there are two


def started(key: str) -> bytes:
    """Entry: the write `key` is about to run."""
    return f"S {key}\n".encode("ascii")


def ended(key: str, response: bytes) -> bytes:
    """Entry: the write `key` ran and was answered with `response`."""
    if len(response) > KEEP_BYTES:
        return f"E {key} -1\n\n".encode("ascii")
    return f"E {key} {len(response)}\n".encode("ascii") + response + b"\n"


def parse(data: bytes) -> tuple[dict[str, bytes | None], set[str]]:
    """Read a journal.

    Returns:
        ended: key -> response, None where it was too large to keep.
        open: keys that began and have no end.
    """
    done: dict[str, bytes | None] = {}
    begun: set[str] = set()
    pos = 0
    while True:
        end = data.find(b"\n", pos)
        if end < 0:
            return done, begun
        words = data[pos:end].decode("ascii", "replace").split(" ")
        pos = end + 1
        if len(words) == 2 and words[0] == "S":
            begun.add(words[1])
            done.pop(words[1], None)  # it runs again: what the first run said holds no more
        elif len(words) == 3 and words[0] == "E":
            try:
                length = int(words[2])
            except ValueError:
                continue
            if length >= 0 and data[pos + length : pos + length + 1] != b"\n":
                return done, begun
            done[words[1]] = data[pos : pos + length] if length >= 0 else None
            begun.discard(words[1])
            pos += max(length, 0) + 1
