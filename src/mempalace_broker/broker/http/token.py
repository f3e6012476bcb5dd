"""The tokens that open the HTTP listener, in files of the user's private folder.

One is for people to copy into the configuration of an agent, wherever that runs; so it permits what a guest may do. The
other is read by programs of the user's own alone, see hub.py; so it permits what the user may do with the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...system.token_file import HTTP_FILE, METRICS_FILE, private_token
from ..machine.session import Origin

if TYPE_CHECKING:
    from ...system.private import PrivateFolder
    from .hub import HubRecord


class HttpTokens:
    """The tokens, as read from their files.

    Attributes:
        keys: each token, and the origin whose rights it gives. own: the token of the user's own programs.
        metrics: the token for the metrics alone, "" if nobody has asked for one.
    """

    def __init__(self, folder: PrivateFolder, hub: HubRecord) -> None:
        self._file = folder.file(HTTP_FILE)
        self._metrics_file = folder.file(METRICS_FILE)
        self._hub = hub
        self.keys: dict[str, Origin] = {}
        self.own = self.metrics = ""

    def read(self) -> None:
        """Read them again, and make what is missing.

        Raises:
            OSError: a file can't be read, written or believed.
        """
        self.own = self._hub.token()
        self.keys = {private_token(self._file): Origin.GUEST, self.own: Origin.USER}
        self.metrics = private_token(self._metrics_file, make=False)
