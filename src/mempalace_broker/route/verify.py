"""Is the broker at the far end of ssh or TCP the one of the palace that is mounted here? Imported late.

A bridge leads to the palace that is configured on that machine, for that user, without any variable of the user's
shell. It may be another one than this container has mounted; memories filed there would look lost. The broker's
welcome names its lease, which is a file in its state root (lease/files): here, too, if the root is shared.
"""

from __future__ import annotations

from ..errors import BrokerError
from ..lease.files import LeaseFolder
from ..lease.machine.record import HolderId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.paths import StateFiles


def verify_palace(files: StateFiles, welcome: Mapping[str, Any]) -> str:
    """Why that broker is not ours; "" if it is, or if its welcome holds nothing to compare."""
    lease = welcome.get("lease")
    if not isinstance(lease, dict):
        return ""
    epoch, nonce = lease.get("epoch"), lease.get("nonce")
    if not isinstance(epoch, int) or not isinstance(nonce, str) or not nonce:
        return ""
    try:
        seen = LeaseFolder(files.leases, HolderId()).read(epoch).holder.nonce
    except (OSError, BrokerError) as exc:
        return f"its lease can't be looked up in {files.leases}: {exc}."
    if seen == nonce:
        return ""
    palace = welcome.get("palace")
    there = palace.get("path") if isinstance(palace, dict) else None
    return (
        f"the broker that was reached serves {there}, which is not the palace that is mounted here as {files.palace}. "
        f"Hint: on its machine, name the mounted one in mempalace's config.json (palace_path), or mount {there} here."
    )
