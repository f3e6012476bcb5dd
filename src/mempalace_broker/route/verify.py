"""Is the broker at the far end of ssh or TCP the one of the palace that is mounted here? Imported late.

A bridge leads to the palace that is configured on that machine, for that user, without any variable of his shell. It
need not be the one that this container has mounted; filing memories there would look like losing them. The broker's
welcome names its claim, which is a file in its state root (lease/files): here, too, if the root is shared.
"""

from __future__ import annotations

from ..errors import BrokerError
from ..lease.files import LeaseFolder
from ..lease.machine.record import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.paths import StateFiles


def doubt(files: StateFiles, welcome: Mapping[str, Any]) -> str:
    """Why that broker is not ours, "" if it is, or if it says nothing that could be compared."""
    claim = welcome.get("claim")
    if not isinstance(claim, dict):
        return ""
    generation, nonce = claim.get("generation"), claim.get("nonce")
    if not isinstance(generation, int) or not isinstance(nonce, str) or not nonce:
        return ""
    try:
        seen = LeaseFolder(files.claims, Writer()).read(generation).writer.nonce
    except (OSError, BrokerError) as exc:
        return f"its claim can't be looked up in {files.claims}: {exc}."
    if seen == nonce:
        return ""
    palace = welcome.get("palace")
    there = palace.get("path") if isinstance(palace, dict) else None
    return (
        f"the broker that was reached serves {there}, which is not the palace that is mounted here as {files.palace}. "
        f"Hint: on its machine, name the mounted one in mempalace's config.json (palace_path), or mount {there} here."
    )
