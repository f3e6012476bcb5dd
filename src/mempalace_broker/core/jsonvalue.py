"""One JSON value from a small file, without importing the `json` package (see jsonrpc.py for why).

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from .jsonrpc import BATCH, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def value_of(data: bytes) -> Any:
    """Parse UTF-8 JSON, with or without a byte order mark.

    Raises:
        ValueError: it is no JSON, more than one value, too deep, or not UTF-8.
    """
    text = data.decode("utf-8-sig")
    # jsonrpc's parser knows messages only; a batch of one is how any other value gets through it
    message = parse(b"[" + text.encode("utf-8") + b"]")
    if message.kind != BATCH or len(message.body) != 1:
        raise ValueError(message.text or "not exactly one JSON value")
    return message.body[0]
