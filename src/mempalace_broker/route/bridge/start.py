"""Start a bridge, and ask it about itself. Imported late."""

from __future__ import annotations

import sys

from ...protocol.jsonrpc import load_object
from ...system.environment import known_environment
from ...system.spawn import spawn_detached
from ..dial import dial
from ..exchange import exchange
from .files import BridgeFiles
from .wire import FIELDS, MAX_ANSWER, STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...system.clock import Deadline
    from ...system.spawn import StartPipe
    from .wire import SshTarget

_SSH_VARIABLES = ("SSH_AUTH_SOCK", "SSH_AGENT_PID", "KRB5CCNAME")


def start_bridge(target: SshTarget, files: BridgeFiles, started_by: str, env: Mapping[str, str]) -> StartPipe:
    """Spawn a bridge. The caller holds its start lock and has dialled once more under it.

    Raises:
        StartFailed, StateRootError: nothing was started.
    """
    argv = [sys.executable, "-P", "-m", "mempalace_broker.route.bridge", "--started-by", started_by]
    argv += ["--folder", files.folder]
    argv += [f"--{name}={value}" for name, value in zip(FIELDS, target.fields(), strict=True)]
    words = {**known_environment(env), **{name: env[name] for name in _SSH_VARIABLES if name in env}}
    return spawn_detached(argv, env=words, cwd="/", log_path=files.log)


def bridge_status(files: BridgeFiles, deadline: Deadline) -> dict[str, Any]:
    """The bridge's own description, {} where no bridge has these files. For `doctor`.

    Returns:
        "state" ("up" or "down"), "mode", "over", "users", "pid", "path" on the host, "error" with "hint".
    """
    sock = dial(files.socket).sock if files.check() else None
    if sock is None:
        return {}
    try:
        return load_object(exchange(sock, STATUS, deadline, limit=MAX_ANSWER))
    except OSError:  # it is leaving
        return {}
    finally:
        sock.close()
