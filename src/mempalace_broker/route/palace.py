"""The palace that a client means, found with the rules of the mempalace that its broker would run.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import PalaceError
from ..system.find_palace import resolve_palace
from ..system.paths import home_of
from .discover import ENDPOINT_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity


def meant_palace(env: Mapping[str, str], flag: str | None = None, backend: str | None = None) -> PalaceIdentity:
    """`resolve_palace` for this environment; the engine is looked for only where versions differ.

    Without a home directory mempalace does not start; then only a broker that the user named can serve.

    Raises:
        PalaceError: as `resolve_palace`, or there is no home. UsageError: the settings that name the engine make no
            sense.
    """
    home = home_of(env)
    if not home and not (flag and env.get(ENDPOINT_VARIABLE)):
        raise PalaceError(
            f"there is no home directory: HOME is not set, and user {os.geteuid()} is not in the password file.",
            hint="set HOME in the environment of the agent, to a folder of its own",
        )

    def version(palace: str) -> tuple[int, ...]:
        from .engine_version import engine_version

        return engine_version(env, palace)

    return resolve_palace(flag, env, home, backend, version=version)
