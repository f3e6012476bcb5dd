"""mempalace's own write lock: a flock on a file in HOME, keyed by the palace; its body says who took it last.

The engine's interpreter runs this module too (Python 3.9).
"""

from __future__ import annotations

import hashlib
import string

FOLDER = ".mempalace/locks"  # in HOME
_MOST_DIGITS = 9
_LONGEST_NAME = 40
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")
_MODULES = ("__main__.py", "__init__.py")  # named by their package


def lock_name(palace: str) -> str:
    """The name of the lock file. `palace`: its real path, as os.path.normcase leaves it."""
    name = palace.encode("utf-8", "surrogateescape")
    return f"mine_palace_{hashlib.sha256(name).hexdigest()[:16]}.lock"


def read_note(body: bytes) -> tuple[int, str]:
    """Pid and command of who took the lock last; (0, "") where the body doesn't say.

    Of the command only program and subcommand are named: the rest are paths, and may be secrets.
    """
    words = body.decode("utf-8", "replace").strip("\0 ").split()
    if not words or not (words[0].isascii() and words[0].isdigit() and len(words[0]) <= _MOST_DIGITS):
        return 0, ""
    return int(words[0]), command_name(words[1:])


def command_name(words: list[str]) -> str:
    """What a command is called, by its words: its program and subcommand.

    Whoever starts a process chooses its words, and a model reads them: what does not look like a name is left out.
    """
    program = [part for part in "".join(words[:1]).split("/") if part not in _MODULES]
    subcommand = [word for word in words[1:2] if word.isalpha()]
    return " ".join(filter(_is_name, [*program[-1:], *subcommand]))


def _is_name(word: str) -> bool:
    return 0 < len(word) <= _LONGEST_NAME and word.isascii() and not set(word) - _NAME_CHARACTERS
