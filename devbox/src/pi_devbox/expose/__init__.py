"""studio-expose: relay the container's outward address to pi-studio on its loopback."""

from __future__ import annotations

from ..start import start


def main() -> int:
    """Run `studio-expose` and return its exit code."""
    return start("expose.cli", "studio_expose", "studio-expose")
