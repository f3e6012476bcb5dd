"""dot-watch: draw a Graphviz file at every save."""

from __future__ import annotations


def main() -> int:
    """Run `dot-watch` and return its exit code."""
    from ..outcome import guarded
    from .cli import dot_watch

    return guarded(dot_watch, "dot-watch")
