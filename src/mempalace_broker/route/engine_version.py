"""Which mempalace would serve a palace, where a client has to know that before there is a broker. Imported late."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..errors import EngineNotFound
from ..settings_files import PrivateSettings
from ..system.environment import known_environment
from ..system.find_engine import SETTING, find_engine, numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def engine_version(env: Mapping[str, str], palace: str) -> tuple[int, ...]:
    """The version of the mempalace that a broker of this palace would run, as (3, 11, 0); () where none tells.

    Looks where a broker would look that is started from this environment.

    Raises:
        UsageError: the settings make no sense.
    """
    known = known_environment(env)
    settings = PrivateSettings.read(known).broker(known, palace)
    try:
        found = find_engine({**known, SETTING: settings.engine}, sys.executable, known.get("PATH", os.defpath))
    except EngineNotFound:
        return ()
    return numbers_of(found.version or "")
