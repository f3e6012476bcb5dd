"""The command line of studio-expose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..errors import ConfigError
from ..outcome import DISTRIBUTION, end_on_signals, say

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_PORT = 8765
MOST = 512


def _port(least: int) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """Make a check for port numbers; a bad one from $STUDIO_PORT is a ConfigError, any other a usage error."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
        if value is None:
            return None
        text = value.strip()
        if text.isascii() and text.isdigit() and least <= int(text) <= 65535:
            return int(text)
        if ctx.get_parameter_source(param.name or "") == ParameterSource.ENVIRONMENT:
            raise ConfigError(f"STUDIO_PORT={text!r} is not a port number.", hint=f"export STUDIO_PORT={DEFAULT_PORT}")
        raise click.BadParameter(f"{text!r} is not a number from {least} to 65535.")

    return check


@click.command("studio-expose", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--port",
    metavar="PORT",
    callback=_port(1),
    envvar="STUDIO_PORT",
    default=str(DEFAULT_PORT),
    show_default=True,
    show_envvar=True,
    help="Port of Studio, on 127.0.0.1.",
)
@click.option(
    "--listen-port",
    metavar="PORT",
    callback=_port(0),
    help="Port to listen on; 0 is any free one.  [default: the same]",
)
@click.option(
    "--bind",
    metavar="ADDRESS|INTERFACE|any",
    default="",
    help="Where to listen: an address, an interface, or all present addresses (any); never loopback.  "
    "[default: the address of the default route]",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 10000),
    default=MOST,
    show_default=True,
    help="Further ones wait until one ends.",
)
@click.version_option(package_name=DISTRIBUTION, prog_name="studio-expose")
def studio_expose(port: int, listen_port: int | None, bind: str, max_connections: int) -> int:
    """Make pi-studio reachable from outside its container, in the foreground, until Ctrl-C.

    Studio listens on the container's loopback only, where `docker -p` can't reach it. This relays the
    container's outward address to it. Bytes pass unread: no token and no URL is ever printed or
    stored here. Start it before or after Studio, which may come and go, as may the address.

    \b
    From your browser to Studio there are four hops:
      1. laptop -> docker host       ssh -L 8765:127.0.0.1:8765 USER@HOST      (on the laptop)
      2. docker host -> container    docker run -p 127.0.0.1:8765:8765 ...     (on the host)
      3. container -> its loopback   studio-expose                             (in the container)
      4. loopback -> Studio          /studio --no-browser --port 8765          (in pi)
    Then open the http://127.0.0.1:8765/?token=... that /studio printed. On the docker host
    itself, skip hop 1.

    \b
    Security: anyone who reaches the relay reaches Studio, and its token is the only protection.
    Publish the port on 127.0.0.1 of the docker host only, as above.

    \b
    Example:
      studio-expose                  in a pane of its own, or in the background (&)
      STUDIO_PORT=9000 studio-expose
      studio-expose --bind eth1

    \b
    Exit codes: 1 can't listen; 2 wrong usage; 78 STUDIO_PORT makes no sense; 130 after Ctrl-C
    and 143 after SIGTERM, the normal ways to end it.
    """
    end_on_signals()
    _relay(port, port if listen_port is None else listen_port, bind.strip(), max_connections)
    return 0


def _relay(port: int, listen_port: int, wanted: str, max_connections: int) -> None:
    from . import address
    from .listeners import Listeners
    from .relay import Relay, room_for

    def choose() -> list[str]:
        outward = "" if wanted else address.outward_address()
        return address.choose(wanted, outward, {} if outward else address.interfaces())

    most = room_for(max_connections)
    listeners = Listeners(choose, listen_port, port, say)
    if most < max_connections:
        say(f"at most {most} connections at once: the limit of open files allows no more (ulimit -n).")
    Relay(listeners, port, most, say).serve()
