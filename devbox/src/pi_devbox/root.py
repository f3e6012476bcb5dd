"""The command group `pi-devbox`."""

from __future__ import annotations

import click

from .image.cli import command_image
from .outcome import DISTRIBUTION


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name=DISTRIBUTION, prog_name="pi-devbox")
def root() -> None:
    """Make the devbox: a container image with pi, its companions, and mp-shim for a shared memory."""


root.add_command(command_image, "image")
