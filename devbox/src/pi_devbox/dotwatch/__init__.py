"""dot-watch: draw a Graphviz file at every save."""

from __future__ import annotations

from ..start import start


def main() -> int:
    """Run `dot-watch` and return its exit code."""
    return start("dotwatch.cli", "dot_watch", "dot-watch")
