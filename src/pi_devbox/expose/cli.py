"""The command line."""

from __future__ import annotations

import click


@click.command()
def studio_expose() -> int:
    """Not there yet."""
    raise click.ClickException("not there yet")
