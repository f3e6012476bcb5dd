"""Which paths a Dockerfile takes from its context, and which arguments it declares. Parses just enough of the grammar.

If the tag does not depend on something that is copied, changes to that never reach the image; builders ignore an
argument that the Dockerfile does not declare. Builders are silent about both; here they are errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile

_CONTINUED = re.compile(r"\\[ \t]*\n(?:[ \t]*#[^\n]*\n)*")
_HEREDOC = re.compile(r"<<-?\s*[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?")
_MOUNT = re.compile(r"--mount=(\S+)")
_GLOB = re.compile(r"[*?\[]")
_ELSEWHERE = ("http://", "https://", "git@", "git://", "ssh://")


def arguments(text: str) -> set[str]:
    """The names of all ARGs."""
    words = [word for name, rest in _instructions(text) if name == "ARG" for word in rest.split()]
    return {word.partition("=")[0] for word in words}


def copied(text: str) -> list[str]:
    """The paths that COPY, ADD and bind mounts take from the build context, as written."""
    return [path for name, rest in _instructions(text) for path in _taken(name, rest)]


def uncovered(paths: Iterable[str], inputs: Iterable[str]) -> list[str]:
    """Those of `paths` that are neither an input nor in one. A pattern counts as the folder before it."""
    known = [_plain(one) for one in inputs]
    return [path for path in paths if ".." in path.split("/") or not any(_within(_plain(path), one) for one in known)]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _plain(path: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    return "/".join(takewhile(lambda part: not _GLOB.search(part), parts)) or "."


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield (instruction in capitals, rest of its logical line), without comments and bodies of here-documents."""
    end = ""
    for line in _CONTINUED.sub(" ", text.replace("\r\n", "\n")).split("\n"):
        stripped = line.strip()
        if end:
            end = "" if stripped == end else end
        elif stripped and not stripped.startswith("#"):
            name, _, rest = stripped.partition(" ")
            found = _HEREDOC.search(rest) if name.upper() in {"RUN", "COPY", "ADD"} else None
            end = found.group(1) if found else ""
            yield name.upper(), rest.strip()


def _taken(name: str, rest: str) -> list[str]:
    if name == "RUN":
        return [path for mount in _MOUNT.findall(rest) for path in _bound(mount)]
    if name not in {"COPY", "ADD"}:
        return []
    flags = re.match(r"(--\S+\s+)*", rest)
    options, operands = (flags.group(0), rest[flags.end() :]) if flags else ("", rest)
    if "--from=" in options:
        return []
    words = [str(word) for word in json.loads(operands)] if operands.startswith("[") else operands.split()
    return [word for word in words[:-1] if not word.startswith((*_ELSEWHERE, "<<"))]


def _bound(mount: str) -> list[str]:
    """The path in the context that a `RUN --mount` binds, if it does."""
    fields = dict(field.partition("=")[::2] for field in mount.split(","))
    if fields.get("type", "bind") != "bind" or "from" in fields:
        return []
    return [fields.get("source") or fields.get("src") or "."]
