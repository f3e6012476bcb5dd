"""From content to a tag: the same content gives the same tag on every machine, any other content another one.

The hash covers a sequence of records. Each has a fixed number of fields, and each field follows its length: different
inputs never give the same bytes. Paths are compared as bytes, independently of the locale. Times, owners and the other
permission bits are left out: git keeps none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

_FORMAT = b"pi-devbox image 1"
_DIGITS = 12
UNRESOLVED = "unresolved"


class Entry(NamedTuple):
    """One file or symbolic link; `content` is the link's target for "link"."""

    path: bytes  # relative to the repository's root, with "/"
    kind: Literal["file", "executable", "link"]
    content: bytes


class Fact(NamedTuple):
    """Anything that changes the image without being a file, such as a build argument."""

    kind: str
    name: str
    value: str


def fingerprint(entries: Iterable[Entry], facts: Iterable[Fact]) -> str:
    """Hash all entries and facts, in any order, to 64 hex digits."""
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
    """Return the image tag for a fingerprint.

    A nonce marks an image that contains an unresolved companion: its content is not determined by the fingerprint, so
    no later build may find this tag in a registry.
    """
    plain = f"{prefix}-{digest[:_DIGITS]}"
    return f"{plain}-{UNRESOLVED}-{nonce}" if nonce else plain
