"""The options that say which palace a command works on; mp-shim takes the same ones."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UsageError
from ..protocol.palace import PalaceIdentity
from ..protocol.record import BadRecord
from ..route.discover import meant_palace
from ..system.kernel import real_path
from ..system.lock_notes import OwnerNote
from ..system.paths import ROOT_VARIABLE, Context, expand, home_of, state_root
from ..system.record_file import RecordFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

F = TypeVar("F", bound="Callable[..., Any]")
wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=30.0,  # less than the calls of most agents wait
    show_default=True,
    metavar="S",
    help="How long to wait until the palace is free.",
)


def context_for(palace: str | None, backend: str | None = None) -> Context:
    """The palace that these flags and this process's environment lead to.

    Raises:
        PalaceError: the configuration names something that can't be a palace.
    """
    env = dict(os.environ)
    identity = meant_palace(env, palace, backend)
    return Context(identity, env)


def context_at(root: str, palace: str | None, backend: str | None = None, *, trust_record: bool = True) -> Context:
    """The palace whose state root is `root` (`~` is this user's home): the one that its broker serves or served last,
    else the one that is ours by default if it belongs there, else the one in `root`/palace.

    Args:
        trust_record: whether the record in `root` counts; whoever has that folder mounted can name any palace in it.

    Raises:
        UsageError: `root` is not an absolute path.
    """
    env = dict(os.environ)
    root = expand(root, home_of(env))
    if not os.path.isabs(root):
        raise UsageError(f"--state-root {root}: not an absolute path.", hint="begin it with / or ~")
    env.pop(ROOT_VARIABLE, None)
    identity = meant_palace(env, palace, backend)
    if palace is None and state_root(identity.path, env) != real_path(root):
        recorded = _recorded(root) if trust_record else None
        identity = recorded or meant_palace(env, os.path.join(root, "palace"))
    env[ROOT_VARIABLE] = root
    return Context(identity, env)


def _recorded(root: str) -> PalaceIdentity | None:
    """The palace that the record in this state root names, unless the root is a copy of that palace's own."""
    record = RecordFile(os.path.join(root, "broker.json")).read()
    try:
        identity = None if isinstance(record, BadRecord) else PalaceIdentity.from_json(record.palace)
    except ValueError:
        return None
    note = OwnerNote.read(os.path.join(identity.path, "broker.lock")) if identity is not None else None
    return None if note is None or note.root != real_path(root) else identity


def pinned_context(root: str | None, palace: str | None) -> Context:
    """The palace to which a key is limited: the named one, else the one in `root`, else the user's own.

    Raises:
        UsageError: `root` is not an absolute path. PalaceError: the configuration names something that can't be one.
    """
    return context_for(palace) if root is None else context_at(root, palace, trust_record=False)


def folders(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the name of a folder."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def palace_options(function: F) -> F:
    """Give a command --palace and --backend; it gets them as one `context`."""

    @click.option(
        "--palace",
        metavar="DIR",
        shell_complete=folders,
        help="The palace, as mp-shim and mempalace-mcp take it. Default: where your version of mempalace has it.",
    )
    @click.option("--backend", metavar="NAME", help="Storage backend, as mempalace-mcp takes it.")
    @functools.wraps(function)
    def wrapped(*, palace: str | None, backend: str | None, state_root: str | None = None, **rest: Any) -> Any:
        if state_root:
            return function(context=context_at(state_root, palace, backend), **rest)
        return function(context=context_for(palace, backend), **rest)

    return wrapped  # type: ignore[return-value]  # click replaces the signature; the command's own type is F


def root_option(function: F) -> F:
    """Give a command the options of `palace_options`, and --state-root, for commands that another machine runs here."""
    text = "The folder of broker.json, instead of what the palace implies."
    return click.option("--state-root", metavar="DIR", shell_complete=folders, help=text)(palace_options(function))
