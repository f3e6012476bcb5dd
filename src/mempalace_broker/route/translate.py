"""A path of this container as the broker, which sees other files, has it. Imported late, where a call names a file."""

from __future__ import annotations

import os

from ..locality.machine.path_map import PathMap, read_mounts
from ..locality.mounts import mount_table
from ..settings_files import PrivateSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.context import Context


def translate(context: Context, path: str, told: Mapping[str, Any]) -> str | None:
    """The broker's name for `path`, None where it can't be known.

    Args:
        path: absolute. Links are resolved here: they are this side's.
        told: the part of the broker's welcome that describes its files.

    Raises:
        UsageError: config.toml makes no sense.
    """
    palace, there = context.identity.path, told.get("palace")
    pathmap = PathMap(
        mine=mount_table(),
        theirs=read_mounts(told.get("mounts")),
        palace_mine=palace,
        palace_theirs=there if isinstance(there, str) else palace,
        same_kernel=told.get("same_kernel") is True,
        fixed=PrivateSettings.read(context.env).container(context.env).paths,
    )
    return pathmap.translate(os.path.realpath(path))
