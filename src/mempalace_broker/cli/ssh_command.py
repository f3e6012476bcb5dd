"""`ssh-command`: the forced command of a restricted ssh key, for authorized_keys."""

from __future__ import annotations

import os
import shlex

import click

from ..errors import EXIT_USAGE
from .outcome import say_error

VARIABLE = "SSH_ORIGINAL_COMMAND"
ALLOWED = ("ensure", "dial-stdio")
_OPTIONS = ("--state-root", "--palace")
_HINT = "let this key run `mempalace-broker ensure` or `mempalace-broker dial-stdio` only, or use another key"


class Refused(Exception):
    """The command is not allowed; the text says why."""


@click.command("ssh-command", short_help="For authorized_keys: run what the ssh client asked for, if allowed.")
@click.option("--state-root", metavar="DIR", help="Allow no other state root, and use it if the client names none.")
@click.option("--palace", metavar="DIR", help="Allow no other palace, and use it if the client names none.")
def command_ssh_command(state_root: str | None, palace: str | None) -> int:
    """Run the command that an ssh client asked for, if it is `ensure` or `dial-stdio`; refuse everything else.

    For a key with which a container may reach the broker and nothing else on this machine.

    \b
    Example: (one line of ~/.ssh/authorized_keys)
      command="mempalace-broker ssh-command",restrict ssh-ed25519 AAAA... container

    \b
    Exit codes: 2 refused, else those of the command.
    """
    from .root import root

    pinned = [
        word for name, value in (("--state-root", state_root), ("--palace", palace)) if value for word in (name, value)
    ]
    try:
        words = allowed(os.environ.get(VARIABLE, ""), pinned)
    except Refused as exc:
        say_error(f"ssh-command: {exc}.", _HINT)
        return EXIT_USAGE
    result = root.main(args=words, prog_name="mempalace-broker", standalone_mode=False)
    return result if isinstance(result, int) else 0


def allowed(asked: str, pinned: list[str]) -> list[str]:
    """The words to run for what the client asked for.

    Args:
        asked: its whole command. pinned: options that it may not contradict, as words.

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
        raise Refused(f"{' '.join(words)[:200]!r} is not for this key")
    fixed = dict(zip(pinned[::2], pinned[1::2], strict=True))
    given = _options(rest[1:])
    for name, value in given.items():
        if name in fixed and os.path.realpath(os.path.expanduser(value)) != os.path.realpath(fixed[name]):
            raise Refused(f"{name} {value!r} is not for this key")
    chosen = {**given, **fixed}
    return [rest[0], *(word for pair in chosen.items() for word in pair)]


def _options(words: list[str]) -> dict[str, str]:
    """The options that we know, with plain values; --json is our output anyway."""
    given: dict[str, str] = {}
    rest = [word for word in words if word != "--json"]
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in _OPTIONS or name in given:
            raise Refused(f"{name[:100]!r} is not for this key")
        if not equals:
            if not rest:
                raise Refused(f"{name} needs a value")
            value = rest.pop(0)
        if not value.startswith(("/", "~/")) or not value.isprintable() or ".." in value.split("/"):
            raise Refused(f"{name} wants a plain absolute path")
        given[name] = value
    return given
