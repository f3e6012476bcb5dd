"""studio-expose: a relay from the container's outward address to pi-studio on its loopback."""

from __future__ import annotations


def main() -> int:
    """The command `studio-expose`; its exit code."""
    from ..outcome import guarded
    from .cli import studio_expose

    return guarded(studio_expose, "studio-expose")
