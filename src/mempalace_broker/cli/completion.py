"""Completion of commands and options by the shell's TAB key; click has the scripts and the answers."""

from __future__ import annotations

import os

import click
from click.shell_completion import shell_complete

from .outcome import COMPLETE_VARIABLE, PROG

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Completion for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
def command_completion(shell: str | None) -> int:
    """Print the script that teaches a shell to complete the commands and options of mempalace-broker.

    SHELL is the one that $SHELL names, unless it is given.

    \b
    Example:
      mempalace-broker completion bash > ~/.local/share/bash-completion/completions/mempalace-broker
      mempalace-broker completion zsh > "${fpath[1]}/_mempalace-broker"
      mempalace-broker completion fish > ~/.config/fish/completions/mempalace-broker.fish

    \b
    Exit codes: 0, 2 the shell is none of these.
    """
    from .root import root

    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in _SHELLS:
        raise click.UsageError(f"$SHELL names {name or 'no shell'}: say which of {', '.join(_SHELLS)} is meant.")
    return shell_complete(root, {}, PROG, COMPLETE_VARIABLE, f"{name}_source")
