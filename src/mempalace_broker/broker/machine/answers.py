"""The answers that need no engine: `initialize`, `tools/list`, and the cache that survives restarts.

mempalace's `initialize` depends on its version alone, so it never waits for an engine. `tools/list` comes from the
last engine of the same version and palace until the present one has reported its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...protocol.constant_answers import ConstantAnswers
from .tool_schemas import normalise_tools

if TYPE_CHECKING:
    from collections.abc import Mapping


class Answers(ConstantAnswers):
    """The constant answers of the present engine.

    Attributes:
        fresh: whether the present engine has reported them; until then they are the cache's, or a guess.
    """

    def __init__(self, version: str = "") -> None:
        super().__init__(version)
        self.fresh = False

    def expect(self, version: str) -> None:
        """mempalace `version` was found; the answer to `initialize` follows from it."""
        self.version = version
        self.template = ConstantAnswers(version).template

    def learn(self, hello: Mapping[str, Any]) -> bool:
        """Take over an engine's hello; return whether the cache has to be written again."""
        before = self._state()
        self.version = str(hello.get("version", ""))
        initialize = hello.get("initialize")
        if isinstance(initialize, dict):
            result = dict(initialize.get("result", {}))
            result.pop("protocolVersion", None)
            self.template = result or self.template
            self.protocols = tuple(map(str, initialize.get("versions", ()))) or self.protocols
        tools = hello.get("tools")
        if isinstance(tools, list):
            self.tools = normalise_tools(tools)
        self.fresh = True
        return self._state() != before

    def _state(self) -> tuple[object, ...]:
        return self.version, self.protocols, self.template, self.tools

    @property
    def offered(self) -> list[Any] | None:
        """The present engine's tools; None until it has reported them."""
        return self.tools if self.fresh else None

    def load(self, data: bytes | None, version: str) -> None:
        """Load a cache that was written for mempalace `version`; ignore any other, and a damaged one."""
        cached = ConstantAnswers.decode(data)
        if cached.version == version and cached.tools is not None:
            self.version, self.template, self.tools = version, cached.template, cached.tools
            self.protocols = cached.protocols
