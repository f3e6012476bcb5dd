"""Which palace a program is about, and the world that it runs in. `mp-shim` imports this module: keep it lean."""

from __future__ import annotations

from .clock import Clock
from .paths import state_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity
    from .paths import StateFiles


class Context:
    """One palace as this program sees it. Not to be changed: `replace` makes another.

    Attributes:
        identity: the palace and how it was chosen.
        env: environment variables.
        clock: the time.
        files: the files of the palace's broker, by default where `identity` and `env` put them.
    """

    __slots__ = ("clock", "env", "files", "identity")

    def __init__(
        self,
        identity: PalaceIdentity,
        env: Mapping[str, str],
        *,
        clock: Clock | None = None,
        files: StateFiles | None = None,
    ) -> None:
        self.identity = identity
        self.env = env
        self.clock = clock or Clock()
        self.files = files or state_files(identity, env)

    def replace(self, *, env: Mapping[str, str] | None = None, files: StateFiles | None = None) -> Context:
        """The same palace with another environment, or with other files."""
        return Context(self.identity, self.env if env is None else env, clock=self.clock, files=files or self.files)
