"""Lines of JSON-RPC 2.0: classify what arrives, write what leaves.

Lenient where MCP peers are known to deviate (a missing or old "jsonrpc" member, invalid UTF-8 in a string), strict
where an answer could reach the wrong request: ids keep value and type, so 7, 7.0 and "7" are three requests.

`mp-shim` imports this module. The `json` package imports `re` and `enum`, which takes over a third of the shim's start,
so this module uses the C scanner and encoder behind it, and the package only where they are missing.
"""

from __future__ import annotations

from ..errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Scan = Callable[[str, int], tuple[Any, int]]
    Encode = Callable[[object], str]


# names of the Model Context Protocol that shim and broker share
INITIALIZE = "initialize"
TOOLS_LIST = "tools/list"
TOOLS_CALL = "tools/call"
CANCELLED = "notifications/cancelled"
INITIALIZED = "notifications/initialized"

# newest first; mempalace 3.4.0 and 3.11.0 both know exactly these
PROTOCOLS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")


class Kind(str):
    """What a message is: one of the constants below."""

    __slots__ = ()


REQUEST = Kind("request")
NOTIFICATION = Kind("notification")
RESPONSE = Kind("response")
BATCH = Kind("batch")
BAD = Kind("bad")
BLANK = Kind("blank")

_LABELS = {PARSE_ERROR: "Parse error", INVALID_REQUEST: "Invalid request", INVALID_PARAMS: "Invalid params"}
_SPACE = " \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SCAN_ERRORS = (ValueError, StopIteration, RecursionError, SystemError)
_MAX_MESSAGE = 8000  # characters of an error message of ours
_SALVAGE = 64 * 1024  # characters searched for the id of a request that can't be parsed
MAX_ID = 1024  # characters or digits of an id
_MAX_NUMBER_ID = 10**MAX_ID
_HEAD = 400  # bytes of a response that are looked at to find its id
_HEADS = (b'{"jsonrpc": "2.0", "id": ', b'{"jsonrpc":"2.0","id":')
_TAILS = (', "result"', ',"result"', ', "error"', ',"error"')


def _unencodable(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not a JSON value")


class _ScannerContext:
    """The options of the C scanner, as json.JSONDecoder() sets them."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # "NaN", "Infinity", "-Infinity"


def _codec() -> tuple[Scan, Encode, Encode]:
    """Return scan(text, index), encode(value) and encode_ascii(value)."""
    try:
        from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner

        options = (None, ":", ",", False, False, True)  # indent, separators, sort_keys, skipkeys, allow_nan
        wide = make_encoder(None, _unencodable, encode_basestring, *options)
        narrow = make_encoder(None, _unencodable, encode_basestring_ascii, *options)
        context: Any = _ScannerContext
        scanner: Any = make_scanner(context)
    except (ImportError, AttributeError, TypeError):  # another Python than CPython, or a changed one
        import json

        plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
        ascii_ = json.JSONEncoder(separators=(",", ":"))
        return json.JSONDecoder().raw_decode, plain.encode, ascii_.encode
    return scanner, lambda value: "".join(wide(value, 0)), lambda value: "".join(narrow(value, 0))


scan, _encode, _encode_ascii = _codec()


class Message:
    """One classified message.

    Attributes:
        kind: REQUEST, NOTIFICATION, RESPONSE, BATCH, BAD or BLANK.
        id: the id with its type; of a BAD message None where it can't be known.
        key: `key_of(id)`, for tables; "" where there is no id.
        method: of a request or notification.
        body: the parsed object; of a BATCH the list of its elements, each for `classify`.
        code, text: of a BAD message: the JSON-RPC error that answers it.
    """

    __slots__ = ("body", "code", "id", "key", "kind", "method", "text")

    def __init__(
        self,
        kind: Kind,
        *,
        id: Any = None,
        key: str = "",
        method: str = "",
        body: Any = None,
        code: int = 0,
        text: str = "",
    ) -> None:
        self.kind = kind
        self.id = id
        self.key = key
        self.method = method
        self.body = body
        self.code = code
        self.text = text

    @property
    def params(self) -> dict[str, Any]:
        """The params object; {} where it is missing or null."""
        found = self.body.get("params") if isinstance(self.body, dict) else None
        return found if isinstance(found, dict) else {}

    def __repr__(self) -> str:
        """For logs: never the body."""
        return f"Message({self.kind} {self.method} {self.key} {self.code or ''})"


def key_of(id_: Any) -> str:
    """Return a text that is equal only for equal ids of one type: 7, 7.0 and "7" differ."""
    return '"' + id_ if isinstance(id_, str) else repr(id_)


def is_id(value: object) -> bool:
    """Whether a request may have this id: a string or a finite number (MCP forbids null), neither of them endless."""
    if isinstance(value, str):
        return len(value) <= MAX_ID
    if isinstance(value, float):
        return value - value == 0.0  # neither infinite nor NaN
    return isinstance(value, int) and not isinstance(value, bool) and -_MAX_NUMBER_ID < value < _MAX_NUMBER_ID


def whole_number(value: object, low: int, high: int) -> int | None:
    """`value` if it is a whole number of that range, else None; true and false are not numbers."""
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None


def bad(code: int, why: str, id_: Any = None) -> Message:
    """A message that is answered with the error `code`."""
    return Message(BAD, id=id_, code=code, text=f"{_LABELS[code]}: {why}")


def parse(line: bytes) -> Message:
    """Classify one line, without its newline. Never raises. Of a long one see `long_line` first."""
    try:
        return _parse(line)
    except (MemoryError, ImportError) as exc:  # the latter: Python itself was moved away
        start = line[:_SALVAGE].decode("utf-8", "replace")
        return bad(INVALID_REQUEST, str(exc) or "there is not enough memory to read it", salvage_id(start))


def _parse(line: bytes) -> Message:
    text = line.decode("utf-8", "replace").strip(_SPACE)
    if not text:
        return Message(BLANK)
    try:
        value, end = scan(text, 0)
    except _SCAN_ERRORS as exc:
        return _unparsable(text, exc)
    if end != len(text):
        return bad(PARSE_ERROR, f"more after the value, at character {end}")
    return Message(BATCH, body=value) if isinstance(value, list) and value else classify(value)


def _unparsable(text: str, exc: Exception) -> Message:
    if isinstance(exc, SystemError):
        import json.decoder  # noqa: F401 - 3.11's scanner finds its exception class only in a loaded module

        try:
            scan(text, 0)
        except _SCAN_ERRORS as clear:
            exc = clear
    if isinstance(exc, RecursionError):
        return bad(INVALID_REQUEST, "nested too deeply", salvage_id(text))
    if isinstance(exc, ValueError) and not hasattr(exc, "pos"):  # int() has a limit of digits
        return bad(INVALID_REQUEST, "a number is too long", salvage_id(text))
    return bad(PARSE_ERROR, "not JSON" if isinstance(exc, StopIteration) else str(exc))


def classify(value: Any) -> Message:
    """Classify one parsed JSON value, not a batch."""
    if not isinstance(value, dict):
        return bad(INVALID_REQUEST, "not an object")
    method, id_ = value.get("method"), value.get("id")
    good_id = is_id(id_)
    key = key_of(id_) if good_id else ""
    if method is None and ("result" in value or "error" in value):
        return Message(RESPONSE, id=id_, key=key, body=value)
    return _classify_call(value, method, id_, key)


def _classify_call(value: dict[str, Any], method: object, id_: Any, key: str) -> Message:
    if not key and "id" in value:
        return bad(INVALID_REQUEST, f"id must be a string or a number, of at most {MAX_ID} characters")
    if not isinstance(method, str):
        return bad(INVALID_REQUEST, "method must be a string", id_)
    if not key:
        return Message(NOTIFICATION, method=method, body=value)
    if not isinstance(value.get("params"), (dict, type(None))):
        return bad(INVALID_PARAMS, "params must be an object", id_)
    return Message(REQUEST, id=id_, key=key, method=method, body=value)


def load(data: bytes) -> Any:
    """Parse any JSON value, with or without a byte order mark, without the cost of importing `json`.

    Raises:
        ValueError: the data is not JSON, more than one value, nested too deeply, or not UTF-8.
    """
    text = data.removeprefix(_BYTE_ORDER_MARK).decode().strip(_SPACE)
    try:
        value, end = scan(text, 0)
    except _SCAN_ERRORS as exc:
        raise ValueError(_unparsable(text, exc).text) from exc
    if end != len(text):
        raise ValueError(f"more after the value, at character {end}")
    return value


def load_object(data: bytes | None) -> dict[str, Any]:
    """The JSON object in bytes that anybody may have written; {} where they are anything else."""
    try:
        value = load(data or b"")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def salvage_id(text: str) -> Any:
    """Find the top-level id of a request that can't be parsed, so that its sender doesn't wait in vain."""
    depth = index = 0
    end = min(len(text), _SALVAGE)
    try:
        while index < end:
            char = text[index]
            if char == '"':
                word, index = scan(text, index)
                if depth == 1 and word == "id":
                    rest = text[index:].lstrip(_SPACE)
                    if rest.startswith(":"):
                        value, _ = scan(rest[1:].lstrip(_SPACE), 0)
                        return value if is_id(value) else None
                continue
            depth += (char in "[{") - (char in "]}")
            index += 1
    except _SCAN_ERRORS:
        pass
    return None


def find_id(line: bytes) -> tuple[Any, int, int] | None:
    """Find the id of a response from one of our programs or from mempalace without parsing the response.

    Returns:
        (id, start, end) with the id's position in the line; None where the line has to be parsed.
    """
    for prefix in _HEADS:
        if line.startswith(prefix):
            break
    else:
        return None
    start = len(prefix)
    raw = line[start : start + _HEAD]
    if not raw.isascii():
        return None
    head = raw.decode("ascii")
    try:
        value, end = scan(head, 0)
    except _SCAN_ERRORS:
        return None
    if not is_id(value) or not head.startswith(_TAILS, end):
        return None
    return value, start, start + end


def replace_id(line: bytes, id_: Any) -> bytes:
    """Return the response with another id; the rest stays as it is, byte for byte where possible."""
    found = find_id(line)
    if found is not None:
        return line[: found[1]] + to_bytes(id_) + line[found[2] :]
    body = parse(line).body
    return to_bytes({**body, "id": id_}) if isinstance(body, dict) else line


def to_bytes(value: object) -> bytes:
    """Return compact JSON in UTF-8 without a newline. Lone surrogates are escaped, infinities written as `json` does.

    Raises:
        TypeError: the value holds something that JSON can't express.
        RecursionError: it is nested too deeply, which a value that `parse` accepted may just be.
    """
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:
        return _encode_ascii(value).encode("ascii")


def result_line(id_: Any, result: object) -> bytes:
    """Return a response line with its newline."""
    return to_bytes({"jsonrpc": "2.0", "id": id_, "result": result}) + b"\n"


def error_line(id_: Any, code: int, message: str, data: object = None) -> bytes:
    """Return an error response line with its newline; `data` is left out when None.

    The message may quote what others wrote: it is made printable and bounded.
    """
    error: dict[str, object] = {"code": code, "message": shown(message, _MAX_MESSAGE)}
    if data is not None:
        error["data"] = data
    return to_bytes({"jsonrpc": "2.0", "id": id_, "error": error}) + b"\n"


def shown(text: str, limit: int) -> str:
    """`text` as `printable` makes it. That is loaded late: errors must be told even where the package was moved."""
    if len(text) <= limit and text.isprintable():
        return text
    from .text import printable

    return printable(text, limit)
