"""What ShimProtocol asks of the program around it: values, so that the machine itself never looks at a file.

The caller takes them from `ShimProtocol.effects`, carries out one after the other, and reports each result by the event
that the class names. Three things are asked for rather than handed in: the proof of the palace, because it starts from
the broker's welcome; the names of paths, because links on the way have to be resolved; and the cache of answers, which
may be megabytes and is needed only while no broker answers. Everything cheap (identity, view of the files, time) comes
with the event that needs it.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class VerifyPalace:
    """Find out whether the broker that sent `welcome` serves our palace; then `palace_verified`."""

    __slots__ = ("welcome",)

    def __init__(self, welcome: Mapping[str, Any]) -> None:
        self.welcome = welcome


class TranslatePaths:
    """Find the broker's names for absolute `paths` of this side; then `paths_translated`.

    Attributes:
        key: the request they belong to.
        files: what the broker's welcome says of its files.
    """

    __slots__ = ("files", "key", "paths")

    def __init__(self, key: str, paths: list[str], files: Mapping[str, Any]) -> None:
        self.key = key
        self.paths = paths
        self.files = files


class ReadAnswers:
    """Read the broker's cache of constant answers; then `answers_read`."""

    __slots__ = ()


if TYPE_CHECKING:
    Effect = VerifyPalace | TranslatePaths | ReadAnswers
