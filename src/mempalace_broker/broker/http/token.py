"""The tokens that open the HTTP listener, in files of the user's private folder.

One is for people to copy into the configuration of an agent, wherever that runs; so it permits what a guest may do. The
other is read by programs of the user's own alone, see hub.py; so it permits what the user may do with the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...system.token_file import HTTP_FILE, private_token
from ..machine.session import Origin

if TYPE_CHECKING:
    from ...system.private import PrivateFolder
    from .hub import HubRecord


class HttpTokens:
    """The tokens as their files have them. `keys`: each token, and whose rights it gives."""

    def __init__(self, folder: PrivateFolder, hub: HubRecord) -> None:
        self._file = folder.file(HTTP_FILE)
        self._hub = hub
        self.keys: dict[str, Origin] = {}

    def read(self) -> None:
        """Read them again, and make what is missing.

        Raises:
            OSError: a file can't be read, written or believed.
        """
        self.keys = {private_token(self._file): Origin.GUEST, self._hub.token(): Origin.USER}
