"""Text that somebody else wrote, on its way to a terminal, a log or an error message.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

LIMIT = 400
_MORE = "..."


def printable(text: str, limit: int = LIMIT) -> str:
    """`text` on one line, without a character that a terminal or a reader's eye would obey.

    Controls, escapes, line ends, bidirectional and invisible marks and lone surrogates become escapes as Python
    writes them: \\x1b, \\n, \\u202e. The result has at most `limit` characters; "..." stands for the rest.
    """
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(map(_visible, text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: max(0, limit - len(_MORE))] + _MORE[:limit]


def printable_tree(value: object, limit: int = LIMIT) -> object:
    """The same for every text in a JSON value, names of fields included."""
    if isinstance(value, str):
        return printable(value, limit)
    if isinstance(value, list):
        return [printable_tree(item, limit) for item in value]
    if isinstance(value, dict):
        return {printable(str(name), limit): printable_tree(item, limit) for name, item in value.items()}
    return value


def _visible(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
