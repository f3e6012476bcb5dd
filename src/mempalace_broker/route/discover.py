"""Where might the broker be? Reads names only; proves nothing, touches nothing.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import UsageError
from ..protocol.jsonrpc import load
from ..protocol.record import MAX_BYTES, Bad, Record, decode, kinship
from ..system.atomic_files import read_bytes
from ..system.paths import home_of
from .endpoint import UNIX, Endpoint, parse
from .machine.election import RECORD_ABSENT, RECORD_BAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.paths import StateFiles

ENDPOINT_VARIABLE = "MEMPALACE_BROKER"
NO_SPAWN_VARIABLE = "MEMPALACE_BROKER_NO_SPAWN"


class Candidates:
    """What the files say: the `record` (or what is wrong with it) and the socket `paths` to dial, best first."""

    __slots__ = ("paths", "record")

    def __init__(self, record: Record | Bad, paths: list[str]) -> None:
        self.record = record
        self.paths = paths


def fixed_endpoint(env: Mapping[str, str]) -> Endpoint | None:
    """What $MEMPALACE_BROKER names, None if it is not set. Raises UsageError where it is no endpoint."""
    text = env.get(ENDPOINT_VARIABLE, "").strip()
    return parse(text, home_of(env)) if text else None


def fixed_path(env: Mapping[str, str]) -> str | None:
    """The unix socket that $MEMPALACE_BROKER names, None if it is not set or names no unix socket.

    Raises:
        UsageError: it is no endpoint.
    """
    endpoint = fixed_endpoint(env)
    return endpoint.path if endpoint is not None and endpoint.kind == UNIX else None


def look(files: StateFiles, env: Mapping[str, str]) -> Candidates:
    """Read the record; with or without a good one, also the name where the socket would be.

    Without a good record the owner lock's body is asked too: a broker of the same palace whose state root was
    named otherwise ($MEMPALACE_PATH) left its endpoint there.

    Raises:
        StateRootError: the folder of the socket is open to others; whoever answers there need not be ours.
    """
    try:
        record = decode(read_bytes(files.record, MAX_BYTES))
    except OSError as exc:
        record = Bad(f"the record can't be read: {exc.strerror or exc}")
    named = [str(owner_note(files).get("endpoint", ""))] if isinstance(record, Bad) else record.endpoints
    paths: list[str] = []
    for endpoint in named:
        if not endpoint.startswith(f"{UNIX}:"):
            continue  # for clients elsewhere
        try:
            path = parse(endpoint, home_of(env)).path
        except UsageError:
            continue  # of no use here
        if path not in paths:
            paths.append(path)
    if files.socket not in paths:
        files.check_socket_folder()
        paths.append(files.socket)
    return Candidates(record, paths)


def owner_note(files: StateFiles) -> dict[str, Any]:
    """What the palace's last owner wrote into its lock: {"pid", "endpoint", "root"}, or less, or nothing."""
    from ..system.lock import read_body

    try:
        note = load(read_body(files.owner_lock) or b"{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def record_state(candidates: Candidates, files: StateFiles) -> str:
    """The sighting as the election table knows it. For the rare path: asks the system about kernel and
    mounts.
    """
    record = candidates.record
    if isinstance(record, Bad):
        return RECORD_ABSENT if record.absent else RECORD_BAD
    from ..locality.mounts import is_local
    from ..locality.process_ids import pid_namespace
    from ..system.kernel import boot_id

    return kinship(record, boot=boot_id(), host=os.uname().nodename, pidns=pid_namespace(), local=is_local(files.root))
