"""The palace that a client means, found with the rules of the mempalace that its broker would run.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..system.find_palace import resolve_palace
from ..system.paths import home_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity


def meant_palace(env: Mapping[str, str], flag: str | None = None, backend: str | None = None) -> PalaceIdentity:
    """`resolve_palace` for this environment; the engine is looked for only where versions differ.

    Raises:
        PalaceError: as `resolve_palace`. UsageError: the settings that name the engine make no sense.
    """

    def version(palace: str) -> tuple[int, ...]:
        from .engine_version import engine_version

        return engine_version(env, palace)

    return resolve_palace(flag, env, home_of(env), backend, version=version)
