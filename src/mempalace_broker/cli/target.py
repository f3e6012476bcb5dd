"""Which palace a command is about: the options that every command takes, as mp-shim takes them."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..runtime.clock import Clock
from ..runtime.paths import StateFiles, home_of, resolve_palace, state_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..core.handshake import Identity

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True)
class Target:
    """A palace, the files of its broker, and the world the command runs in."""

    identity: Identity
    files: StateFiles
    env: Mapping[str, str]
    clock: Clock


def find_target(palace: str | None, backend: str | None = None, collection: str | None = None) -> Target:
    """The palace that these flags and this process's environment lead to.

    Raises:
        PalaceError: the configuration names something that can't be a palace.
    """
    env = dict(os.environ)
    identity = resolve_palace(palace, env, home_of(env), backend, collection)
    return Target(identity, state_files(identity, env), env, Clock())


def palace_options(function: F) -> F:
    """Give a command --palace, --backend and --collection; it gets them as one `target`."""

    @click.option(
        "--palace",
        metavar="DIR",
        help="The palace, as mp-shim and mempalace-mcp take it. "
        "Default: $MEMPALACE_PALACE_PATH, then mempalace's config.json, then its default.",
    )
    @click.option("--backend", metavar="NAME", help="Storage backend, as mempalace-mcp takes it.")
    @click.option("--collection", metavar="NAME", help="Collection, as mempalace-mcp takes it.")
    @functools.wraps(function)
    def wrapped(*, palace: str | None, backend: str | None, collection: str | None, **rest: Any) -> Any:
        return function(target=find_target(palace, backend, collection), **rest)

    return wrapped  # type: ignore[return-value]  # click replaces the signature; the command's own type is F
