"""studio-expose: relay the container's outward address to pi-studio on its loopback."""

from __future__ import annotations


def main() -> int:
    """Run `studio-expose` and return its exit code."""
    from ..outcome import guarded
    from .cli import studio_expose

    return guarded(studio_expose, "studio-expose")
