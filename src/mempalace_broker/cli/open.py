"""`open`: show the broker's page in a browser."""

from __future__ import annotations

import html
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_OK, BrokerUnavailable
from .context_options import palace_options

if TYPE_CHECKING:
    from ..system.paths import Context

ANSWER_S = 5.0
_LINK = "open.html"
_PAGE = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={0}"><a href="{0}">mempalace</a>\n'
)


@click.command("open", short_help="Open the broker's page in your browser.")
@click.option("--no-browser", is_flag=True, help="Only print the link.")
@click.option("--json", "as_json", is_flag=True, help='Only print {"url", "expires_s"} as JSON.')
@palace_options
def command_open(context: Context, no_browser: bool, as_json: bool) -> int:
    """Open the broker's page: its status with charts, the wings and rooms, a search, and doctor's hints.

    Starts a broker if none runs. The page is on 127.0.0.1 and changes nothing. The link works once, within a minute;
    the browser then has access for a day. From another machine, forward the port first:
    ssh -L PORT:127.0.0.1:PORT HOST.

    \b
    Example:
      mempalace-broker open
      mempalace-broker open --no-browser

    \b
    Exit codes: 0, 69 no broker answers, or it does not listen for HTTP.
    """
    found = _link(context)
    if as_json:
        click.echo(json.dumps({name: found[name] for name in ("url", "expires_s")}))
        return EXIT_OK
    click.echo(f"{found['url']}\nThe link works once, within {found['expires_s']} s.")
    if not no_browser and _has_display():
        _browse(context, found["url"])
    return EXIT_OK


def _link(context: Context) -> dict[str, Any]:
    """Ask the broker for a link; return its answer.

    Raises:
        BrokerUnavailable: it does not answer, or has no page.
    """
    from ..protocol.hello import OPEN
    from ..route.ask import ask_broker
    from ..system.clock import Deadline
    from .serve import ensure

    ensure(context)
    said = ask_broker(context, OPEN, {}, Deadline.after(context.clock, ANSWER_S))
    if said.answer is None:
        raise BrokerUnavailable(f"{said.why}.", hint="mempalace-broker status")
    if not said.answer.get("url"):
        hint = "set http = true under [broker] in config.toml, then `mempalace-broker restart`"
        raise BrokerUnavailable(f"there is no page: {said.answer.get('why')}.", hint=hint)
    return said.answer


def _has_display() -> bool:
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _browse(context: Context, url: str) -> None:
    """Start the user's browser with a file that leads to the link: other users can see command lines."""
    import webbrowser

    try:
        file = context.files.private.file(_LINK)
        file.write(_PAGE.format(html.escape(url)).encode())
        webbrowser.open(f"file://{file.path}")
    except OSError as exc:
        click.echo(f"no browser was started: {exc}", err=True)
