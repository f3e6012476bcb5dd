"""A broker that a container of this machine started, as the host finds it: told to leave, so that the host owns.

Whoever sees the broker's process from outside its pid namespace is the host. A host session takes its tools and its
memory from no process of a guest, so it tells that broker to leave, as SIGTERM does: running calls finish, writes are
settled, and its clients go on with the next broker, which is the host's. Imported late, in a route that found one.
"""

from __future__ import annotations

import os
import signal
import sys

from ..errors import BrokerUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.unix_socket import PeerProcess


def tell_to_leave(broker: PeerProcess, palace: str) -> None:
    """Send SIGTERM to a broker in a container; one that is gone has left.

    Raises:
        BrokerUnavailable: it belongs to a user whom we may not end.
    """
    if sys.platform == "linux":  # elsewhere, containers run under another kernel
        try:
            process = os.pidfd_open(broker.pid)
        except ProcessLookupError:
            return
        try:
            if broker.is_alive():  # so that pid is not another process's by now
                signal.pidfd_send_signal(process, signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError as exc:
            raise BrokerUnavailable(
                f"a container's broker (pid {broker.pid}) has {palace}, and this user may not tell it to leave.",
                hint=f"sudo kill {broker.pid}; and let the container run as the owner of the palace",
            ) from exc
        finally:
            os.close(process)
