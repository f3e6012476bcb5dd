"""Options that several commands of `pi-devbox image` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine several decorators into one; help lists the options in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


common = together(
    click.option("--root", type=FOLDER, metavar="DIR", help="The checkout (default: around the current directory)."),
    click.option(
        "--timeout",
        type=click.FloatRange(1, 3600),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Time limit for one companion or tag.",
    ),
)

outputs = together(
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    click.option("--github-output", is_flag=True, help="Also append key=value lines to $GITHUB_OUTPUT."),
)

resolved = click.option(
    "--resolved", type=FILE, metavar="FILE", help="Output of `resolve --json`, instead of resolving."
)

planned = together(
    click.option("--image", default="", metavar="NAME", help="Full image name (default: $IMAGE, else the file's)."),
    click.option(
        "--release",
        metavar="VERSION",
        help="Publish as VERSION, and as latest if it is N.N.N and the registry has no newer one (default: the git tag "
        "of a workflow, else edge).",
    ),
    click.option(
        "--force",
        is_flag=True,
        envvar="PI_DEVBOX_FORCE",
        help="Build everything anew, without any cached layer (or $PI_DEVBOX_FORCE=true).",
    ),
    click.option(
        "--platform",
        "platforms",
        multiple=True,
        metavar="OS/ARCH",
        help="Instead of the file's platforms; may be repeated.",
    ),
    click.option(
        "--registry-facts",
        "facts",
        type=FILE,
        metavar="FILE",
        help="The registry's tags, as `skopeo list-tags` prints them, instead of asking it.",
    ),
    resolved,
)

building = together(
    click.option(
        "--plan",
        "plan_file",
        type=FILE,
        metavar="FILE",
        help="Output of `plan --json` (default: $PI_DEVBOX_PLAN, else plan now).",
    ),
    click.option(
        "--builder",
        type=click.Choice(["auto", "buildx", "buildah"]),
        default="auto",
        show_default=True,
        help="auto: docker's buildx where an engine answers, else buildah.",
    ),
    click.option("--attempts", type=click.IntRange(1, 10), default=3, show_default=True, help="Attempts at each step."),
    click.option("--dry-run", is_flag=True, help="Print the commands without running them."),
)
