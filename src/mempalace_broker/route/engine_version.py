"""Which mempalace would serve a palace, where that has to be known before there is a broker. Imported late."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..errors import EngineNotFound
from ..settings_files import PrivateSettings
from ..system.environment import known_environment
from ..system.find_engine import SETTING, EngineCommand, find_engine
from ..system.program_folders import numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def expected_engine(env: Mapping[str, str], palace: str = "") -> EngineCommand:
    """The engine that a broker would run if it were started from this environment.

    Raises:
        UsageError: the settings make no sense. EngineNotFound: there is none.
    """
    known = known_environment(env)
    return find_engine({**known, SETTING: chosen_engine(env, palace)}, sys.executable, known.get("PATH", os.defpath))


def chosen_engine(env: Mapping[str, str], palace: str = "") -> str:
    """The engine that the settings name, "" if they name none. Raises UsageError if they make no sense."""
    known = known_environment(env)
    return PrivateSettings.read(known).broker(known, palace).engine


def engine_version(env: Mapping[str, str], palace: str) -> tuple[int, ...]:
    """The version of the mempalace that a broker of this palace would run, as (3, 11, 0); () where none tells.

    Raises:
        UsageError: the settings make no sense.
    """
    try:
        return numbers_of(expected_engine(env, palace).version or "")
    except EngineNotFound:
        return ()
