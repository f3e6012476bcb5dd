"""Frames between broker and engine: one header line of five ASCII words, then a payload of known length.

    broker -> engine   call <n> <lane> <key> <len>       run this JSON-RPC request (payload: the client's bytes)
                       confine <n> <lane> <key> <len>    the same, but read no file outside the paths in its arguments
                       prefetch <n> <lane> - <len>       this call comes soon: embed its text now (best effort)
                       park 0 - - 0                      no call is under way: close the palace, give up its write lock
                       unpark 0 - - 0                    take the lock, as soon as it is free, and open the palace
                       (end of file)                     finish the running calls, then leave
    engine -> broker   hello 0 - - <len>                 mempalace is imported; payload: Mempalace.hello()
                       ready 0 - - <len>                 the palace is open; payload: what EngineReport.ready takes
                       parked 0 - - <len>                payload: {"problem"}: why a file stays open, or ""
                       waiting 0 - - <len>               while unparking: {"holder"} of the lock, "" once it is ours
                       degraded 0 - - <len>              as ready, while it is open: the degraded entries have changed
                       begun <n> - - 0                   a call that waited inside the engine starts now
                       progress <n> - <i>/<of> 0         a mine works on its file number i
                       done <n> - <code> <len>           payload: the JSON-RPC response; code: its error code or 0
                       fail 0 - <exit> <len>             the engine can't serve; payload: {"reason", "message", "hint"}

`key` names a write for the journal ("-": not journalled). Both sides keep payloads as bytes: a response travels to the
client without being parsed again. The engine's interpreter runs this module too (Python 3.9).
"""

from __future__ import annotations

MAX_HEADER = 512
MAX_PAYLOAD = 256 * 1024 * 1024
_WORDS = 5

# verbs
CALL = "call"
CONFINE = "confine"
PREFETCH = "prefetch"
PARK = "park"
UNPARK = "unpark"
HELLO = "hello"
READY = "ready"
PARKED = "parked"
WAITING = "waiting"
DEGRADED = "degraded"
BEGUN = "begun"
PROGRESS = "progress"
DONE = "done"
FAIL = "fail"

# reasons in the payload of a `fail` frame
NO_MEMPALACE = "no_mempalace"
IMPORT_FAILED = "import_failed"
OLD_VERSION = "old_version"
BAD_PALACE = "bad_palace"
BAD_STORAGE = "bad_storage"
SWAPPED_STORE = "swapped_store"
WRITE_LOCK_HELD = "write_lock_held"  # by another process, which may end
WRITE_LOCK_FAILED = "write_lock_failed"


class FrameError(Exception):
    """The other side sent something that is not a frame: it is not ours, or its output is garbled."""


class Frame:
    """One frame: `verb`, call number `n`, `lane` or "-", `tag` (journal key, a code, progress), `payload`."""

    __slots__ = ("lane", "n", "payload", "tag", "verb")

    def __init__(self, verb: str, n: int = 0, lane: str = "-", tag: str = "-", payload: bytes = b"") -> None:
        self.verb = verb
        self.n = n
        self.lane = lane
        self.tag = tag
        self.payload = payload

    def encode(self) -> bytes:
        """Header and payload, as sent.

        Raises:
            FrameError: the other side would not take it.
        """
        if len(self.payload) > MAX_PAYLOAD:
            raise FrameError(f"a message of {len(self.payload)} bytes is too long for the engine's pipe")
        head = f"{self.verb} {self.n} {self.lane} {self.tag} {len(self.payload)}\n".encode("ascii", "replace")
        if len(head) > MAX_HEADER or len(head.split(b" ")) != _WORDS:
            raise FrameError(f"not a frame header: {head[:80]!r}")
        return head + self.payload

    def __repr__(self) -> str:
        """For logs; never shows the payload."""
        return f"Frame({self.verb} {self.n} {self.lane} {self.tag} +{len(self.payload)} bytes)"

    def __eq__(self, other: object) -> bool:
        """Compare all five parts."""
        if not isinstance(other, Frame):
            return NotImplemented
        return self.encode() == other.encode()

    def __hash__(self) -> int:
        """Hash the encoded frame."""
        return hash(self.encode())


def parse_header(line: bytes) -> tuple[Frame, int]:
    """Parse a header line without its newline; return the frame (payload still empty) and the payload length."""
    try:
        words = line.decode("ascii").split(" ")
        if len(words) != _WORDS:
            raise ValueError("five words expected")
        verb, n, lane, tag, length = words[0], int(words[1]), words[2], words[3], int(words[4])
    except ValueError as exc:
        raise FrameError(f"not a frame header: {line[:80]!r} ({exc})") from exc
    if not verb.isalpha() or not 0 <= length <= MAX_PAYLOAD:
        raise FrameError(f"not a frame header: {line[:80]!r}")
    return Frame(verb, n, lane, tag), length


class FrameDecoder:
    """Bytes in, frames out, wherever the stream is cut. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buf = bytearray()
        self._pending: Frame | None = None
        self._need = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes; return the frames they complete.

        Raises:
            FrameError: the stream is garbled; nothing after this point can be trusted.
        """
        self._buf += data
        out: list[Frame] = []
        while True:
            if self._pending is None:
                end = self._buf.find(b"\n", 0, MAX_HEADER)
                if end < 0:
                    if len(self._buf) >= MAX_HEADER:
                        raise FrameError(f"no frame header in {bytes(self._buf[:80])!r}")
                    return out
                self._pending, self._need = parse_header(bytes(self._buf[:end]))
                del self._buf[: end + 1]
            if len(self._buf) < self._need:
                return out
            frame, self._pending = self._pending, None
            frame.payload = bytes(self._buf[: self._need])
            del self._buf[: self._need]
            out.append(frame)
