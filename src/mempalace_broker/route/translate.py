"""A path of this container as the broker, which sees other files, has it. Imported late, where a call names a file."""

from __future__ import annotations

import os

from ..locality.machine.path_map import PathMap, read_mounts
from ..locality.mounts import mount_table
from ..protocol.hello import PROOF_PREFIX
from ..settings_files import PrivateSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.paths import Context

_MAX_NONCE = 64


def translate(context: Context, path: str, told: Mapping[str, Any]) -> str | None:
    """The broker's name for `path`, None where it can't be known.

    Args:
        path: absolute. Links are resolved here: they are this side's.
        told: the part of the broker's welcome that describes its files.

    Raises:
        UsageError: config.toml makes no sense.
    """
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):  # a lone surrogate, for one: no file has such a name
        return None
    palace, there = context.identity.path, told.get("palace")
    pathmap = PathMap(
        mine=mount_table(),
        theirs=read_mounts(told.get("mounts")),
        palace_mine=palace,
        palace_theirs=there if isinstance(there, str) else palace,
        same_kernel=told.get("same_kernel") is True,
        fixed=PrivateSettings.read(context.env).container(context.env).paths,
    )
    return pathmap.translate(real)


def prove(path: str, nonce: object) -> None:
    """Show the broker that we have the folder `path`, or the one of that file: make a file of the name it told us.

    The broker removes the file. Where we can't make it, the broker says what else helps.
    """
    if not isinstance(nonce, str) or not nonce.isalnum() or len(nonce) > _MAX_NONCE:
        return
    real = os.path.realpath(path)
    name = os.path.join(real if os.path.isdir(real) else os.path.dirname(real), PROOF_PREFIX + nonce)
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError:
        return
