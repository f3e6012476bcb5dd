"""Is the broker at the far end of ssh or TCP the one of the palace that is mounted here? Imported late.

A bridge leads to the palace that is configured on that machine, for that user, without any variable of the user's
shell. It may be another one than this container has mounted; memories filed there would look lost. The broker's
welcome names its lease, which is a file in its state root (lease/files): here, too, if the root is shared. In a copy of
that root the file stands still, so the welcome also says how far the lease has come.
"""

from __future__ import annotations

from time import monotonic, sleep

from ..errors import BrokerError
from ..lease.files import LeaseFolder
from ..lease.machine.lease import VISIBILITY_DELAY_S
from ..lease.machine.record import HolderId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.paths import StateFiles


_COPY = (
    "the broker that was reached serves {there}; what is mounted here as {here} is a copy of that: its lease stands "
    "still. Hint: mount {there} itself here, or remove the copy's broker.json and broker-claims."
)
_LOOK_S = 0.1


def _read(path: str, epoch: int, nonce: str, sequence: object) -> bool | None:
    """Whether that lease lies here and lives: it has come as far as its broker said. None where there is another one.

    Raises:
        OSError, StateRootError: it can't be read.
    """
    folder, latest = LeaseFolder(path, HolderId()), monotonic() + VISIBILITY_DELAY_S
    while True:
        seen = folder.read(epoch)
        if seen.holder.nonce != nonce:
            return None
        if not isinstance(sequence, int) or seen.sequence >= sequence:
            return True
        if monotonic() > latest:
            return False
        sleep(_LOOK_S)


def verify_palace(files: StateFiles, welcome: Mapping[str, Any]) -> str:
    """Why that broker is not ours; "" if it is, or if its welcome holds nothing to compare."""
    lease = welcome.get("lease")
    if not isinstance(lease, dict):
        return ""
    epoch, nonce = lease.get("epoch"), lease.get("nonce")
    if not isinstance(epoch, int) or not isinstance(nonce, str) or not nonce:
        return ""
    palace = welcome.get("palace")
    there = palace.get("path") if isinstance(palace, dict) else None
    try:
        seen = _read(files.leases, epoch, nonce, lease.get("sequence"))
    except (OSError, BrokerError) as exc:
        return f"its lease can't be looked up in {files.leases}: {exc}."
    if seen is not None:
        return "" if seen else _COPY.format(there=there, here=files.palace)
    return (
        f"the broker that was reached serves {there}, which is not the palace that is mounted here as {files.palace}. "
        f"Hint: on its machine, name the mounted one in mempalace's config.json (palace_path), or mount {there} here."
    )
