"""`token`: print or replace the token that clients over TCP or HTTP need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..errors import StateRootError, file_hint
from .context_options import palace_options

if TYPE_CHECKING:
    from ..system.paths import Context


@click.command("token", short_help="Print or replace the token for clients over TCP or HTTP.")
@click.option("--http", is_flag=True, help="The one for HTTP; the broker's address is in `status`.")
@click.option("--metrics", is_flag=True, help="The one for Prometheus, which opens /metrics and nothing else.")
@click.option("--new", is_flag=True, help="Make a new one; clients that know the old one must get it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for scripts.")
@palace_options
def command_token(context: Context, http: bool, metrics: bool, new: bool, as_json: bool) -> int:
    """Print the token that a client needs to reach this broker over TCP; make it if there is none yet.

    Whoever has it can read and write the palace. It is kept in a file of the state root that only you can
    read, and never changes by itself. Clients that see the state root find it there; for others, copy it and
    name the copy in MEMPALACE_BROKER_TOKEN_FILE. The one for HTTP is another, in your private folder; agents
    send it as "Authorization: Bearer TOKEN". Prometheus sends a third one in the same way, which does not give
    access to the memory.

    \b
    Example:
      mempalace-broker token | ssh vm 'umask 077; cat > ~/.mempalace-token'
      mempalace-broker token --new
      mempalace-broker token --http
      mempalace-broker token --metrics > ~/mempalace-metrics-token

    \b
    Exit codes: 0, 73 it can't be written, 78 its file is open to others or holds no token.
    """
    from ..system.token_file import HTTP_FILE, METRICS_FILE, ensure_token, replace_token, token_path

    if http and metrics:
        raise click.UsageError("--http and --metrics name different tokens: give one of the two.")
    if http or metrics:
        return _private_token(context, METRICS_FILE if metrics else HTTP_FILE, new=new, as_json=as_json)
    context.files.prepare()
    token = (replace_token if new else ensure_token)(context.files.root)
    click.echo(json.dumps({"token": token, "file": token_path(context.files.root), "new": new}) if as_json else token)
    return 0


def _private_token(context: Context, name: str, *, new: bool, as_json: bool) -> int:
    from ..system.token_file import private_token

    file = context.files.private.file(name)
    try:
        token = private_token(file, new=new)
    except OSError as exc:
        raise StateRootError(f"no token can be kept: {exc}.", hint=file_hint(exc)) from exc
    click.echo(json.dumps({"token": token, "file": file.path, "new": new}) if as_json else token)
    return 0
