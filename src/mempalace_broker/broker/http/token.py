"""The token that opens the HTTP listener, in a file of the user's private folder.

It is for people to copy into the configuration of an agent, wherever that runs; so it permits what a guest may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...system.token_file import HTTP_FILE, private_token
from ..machine.session import Origin

if TYPE_CHECKING:
    from ...system.private import PrivateFolder


class HttpTokens:
    """The tokens as their files have them. `keys`: each token, and whose rights it gives."""

    def __init__(self, folder: PrivateFolder) -> None:
        self._file = folder.file(HTTP_FILE)
        self.keys: dict[str, Origin] = {}

    def read(self) -> None:
        """Read them again, and make what is missing.

        Raises:
            OSError: a file can't be read, written or believed.
        """
        self.keys = {private_token(self._file): Origin.GUEST}
