"""From content to a tag: the same content gives the same tag on every machine, any other content another one.

Hashed is a sequence of records, each a fixed number of fields, each field preceded by its length: no two different
inputs give the same bytes. Paths are compared as bytes, so no locale has a say. Neither times nor owners nor the other
permission bits are part of it (git keeps none of them), nor is anything rewritten (a CRLF is content).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

_FORMAT = b"pi-devbox image 1"
_DIGITS = 12
UNRESOLVED = "unresolved"

# AppleDouble shadows, Finder's notes, caches, what editors leave: .gitignore and .dockerignore have the same.
NEVER = (b"._*", b".DS_Store", b"__pycache__", b".mypy_cache", b".ruff_cache", b"*.pyc", b"*.swp", b"*~")


class Entry(NamedTuple):
    """One file or symbolic link; `content` is the link's target for "link"."""

    path: bytes  # relative to the repository's root, with "/"
    kind: Literal["file", "executable", "link"]
    content: bytes


class Fact(NamedTuple):
    """Something that is no file and still changes the image, as a build argument."""

    kind: str
    name: str
    value: str


def ignored(name: bytes) -> bool:
    """Is a file or folder of this name no input, wherever it lies?"""
    return any(fnmatchcase(name, pattern) for pattern in NEVER)


def fingerprint(entries: Iterable[Entry], facts: Iterable[Fact]) -> str:
    """64 hex digits over all entries and facts, whatever order they come in."""
    digest = hashlib.sha256()
    records: list[tuple[bytes, ...]] = [(b"format", _FORMAT)]
    records += [(b"entry", path, kind.encode(), content) for path, kind, content in sorted(set(entries))]
    records += [tuple(field.encode() for field in ("fact", *fact)) for fact in sorted(set(facts))]
    for record in records:
        for field in (b"%d" % len(record), *record):
            digest.update(b"%d:" % len(field))
            digest.update(field)
    return digest.hexdigest()


def tag(prefix: str, digest: str, nonce: str = "") -> str:
    """The image tag for a fingerprint.

    A tag with a nonce is of something that stands for a moving name: published once, it says nothing about the next
    build. The nonce keeps it from ever being found in a registry.
    """
    plain = f"{prefix}-{digest[:_DIGITS]}"
    return f"{plain}-{UNRESOLVED}-{nonce}" if nonce else plain
