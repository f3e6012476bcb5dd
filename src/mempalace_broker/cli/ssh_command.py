"""`ssh-command`: the forced command of a restricted ssh key, for authorized_keys."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

import click

from ..errors import EXIT_USAGE
from ..protocol.text import printable
from ..system.kernel import real_path
from .outcome import say_error

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "SSH_ORIGINAL_COMMAND"
ALLOWED = ("ensure", "dial-stdio")
_OPTIONS = ("--state-root", "--palace")
_HINT = "let this key run `mempalace-broker ensure` or `mempalace-broker dial-stdio` only, or use another key"
_SHOWN = 200


class Refused(Exception):
    """The command is not allowed; the text says why."""


@click.command("ssh-command", short_help="For authorized_keys: run what the ssh client asked for, if allowed.")
@click.option("--state-root", metavar="DIR", help="The state root that this key may use.")
@click.option("--palace", metavar="DIR", help="The palace that this key may use.")
def command_ssh_command(state_root: str | None, palace: str | None) -> int:
    """Run the command that an ssh client asked for, if it is `ensure` or `dial-stdio`; refuse everything else.

    For a key with which a container may use the memory and nothing else on this machine. The key is limited to one
    palace: the one that the options name, else your own. The client may name that one, too, and no other; nothing
    else of its command counts. Its sessions are a guest's: see docs/security.md.

    \b
    Example: (one line of ~/.ssh/authorized_keys)
      command="mempalace-broker ssh-command",restrict ssh-ed25519 AAAA... container

    \b
    Exit codes: 2 refused, else those of the command.
    """
    from .context_options import pinned_context

    context = pinned_context(state_root, palace)
    own = {"--state-root": context.files.root, "--palace": context.identity.path}
    try:
        command = allowed(os.environ.get(VARIABLE, ""), own)
    except Refused as exc:
        say_error(f"ssh-command: {exc}.", _HINT)
        return EXIT_USAGE
    if command == "dial-stdio":
        from .dial_stdio import dial_stdio

        return dial_stdio(context, guest=True)
    from .serve import ensure, tcp_endpoint

    click.echo(json.dumps({**ensure(context), "tcp": tcp_endpoint(context)}))
    return 0


def allowed(asked: str, own: Mapping[str, str]) -> str:
    """Which command to run for what the client asked for: one of ALLOWED.

    Args:
        asked: its whole command. own: by option, the real path that this key is limited to.

    Raises:
        Refused: it is not allowed.
    """
    try:
        words = shlex.split(asked)
    except ValueError as exc:
        raise Refused(f"the command can't be read ({exc})") from exc
    if not words:
        raise Refused("this key gives no shell")
    program, *rest = words
    if program.rpartition("/")[2] != "mempalace-broker" or not rest or rest[0] not in ALLOWED:
        raise Refused(f"{printable(repr(' '.join(words)), _SHOWN)} is not for this key")
    for name, value in _options(rest[1:]).items():
        if real_path(os.path.expanduser(value)) != own[name]:
            raise Refused(f"{name} {printable(repr(value), _SHOWN)} is not for this key")
    return rest[0]


def _options(words: list[str]) -> dict[str, str]:
    """The options that we know, with plain values; --json is our output anyway."""
    given: dict[str, str] = {}
    rest = [word for word in words if word != "--json"]
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in _OPTIONS or name in given:
            raise Refused(f"{printable(repr(name), _SHOWN)} is not for this key")
        if not equals:
            if not rest:
                raise Refused(f"{name} needs a value")
            value = rest.pop(0)
        if not value.startswith(("/", "~/")) or not value.isprintable() or ".." in value.split("/"):
            raise Refused(f"{name} wants a plain absolute path")
        given[name] = value
    return given
