"""A call as the broker sends it."""

from __future__ import annotations

import os
from typing import Any

from ..protocol.engine_frames import CONFINE, Frame
from ..protocol.tools import rule_for
from . import payload


class Call:
    """One `call` frame, decoded.

    Attributes:
        error: the answer to a payload that is not JSON, else None.
        folders: what a guest's call may read, None for every other call.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.request: Any = None
        self.error: dict[str, Any] | None = None
        try:
            self.request = payload.decode_request(frame.payload)
        except payload.BadRequest as exc:
            self.error = exc.response
        self.tool, self.arguments = payload.tool_call(self.request)
        self.folders: list[str] | None = None
        if frame.verb == CONFINE:
            named = [self.arguments.get(name) for name in rule_for(self.tool).paths]
            self.folders = [path for path in named if isinstance(path, str) and os.path.realpath(path) == path]
