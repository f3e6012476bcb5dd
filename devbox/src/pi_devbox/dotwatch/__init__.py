"""dot-watch: a picture from a Graphviz file at every save."""

from __future__ import annotations


def main() -> int:
    """The command `dot-watch`; its exit code."""
    from ..outcome import guarded
    from .cli import dot_watch

    return guarded(dot_watch, "dot-watch")
