"""The command line `pi-devbox`."""

from __future__ import annotations

from .start import start


def main() -> int:
    """Run one command and return its exit code (docs/devbox.md)."""
    return start("root", "root", "pi-devbox")
