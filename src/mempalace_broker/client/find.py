"""Where might the broker be? Reads names only; proves nothing, touches nothing.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..core.election import RECORD_ABSENT, RECORD_BAD
from ..core.jsonrpc import load
from ..core.record import MAX_BYTES, Bad, Record, decode, kinship
from ..errors import UsageError
from ..runtime.paths import expand, home_of
from ..runtime.recordfile import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..runtime.paths import StateFiles

ENDPOINT_VARIABLE = "MEMPALACE_BROKER"
NO_SPAWN_VARIABLE = "MEMPALACE_BROKER_NO_SPAWN"
UNIX = "unix:"
_MAX_SUN_PATH = 107


class Sighting:
    """What the files say: the `record` (or what is wrong with it) and the socket `paths` to dial, best first."""

    __slots__ = ("paths", "record")

    def __init__(self, record: Record | Bad, paths: list[str]) -> None:
        self.record = record
        self.paths = paths


def unix_path(endpoint: str, env: Mapping[str, str]) -> str:
    """The socket path that an endpoint names: "unix:/path", "unix:///path" or a bare path.

    Raises:
        UsageError: it is of a kind that this version does not know, or can't be a socket.
    """
    scheme, colon, rest = endpoint.partition(":")
    if colon and scheme in ("tcp", "ssh"):
        raise UsageError(
            f"{endpoint!r}: {scheme}:// endpoints are not yet in this version.",
            mend=f"name a unix socket (unix:/path), or unset {ENDPOINT_VARIABLE}.",
        )
    if colon and scheme == "unix":
        path = rest.removeprefix("//") if rest.startswith("///") else rest
    elif "://" in endpoint:
        raise UsageError(f"{endpoint!r} is no endpoint that I know.", mend="use unix:/path or a bare path.")
    else:
        path = endpoint
    path = expand(path, home_of(env))
    if not path or path.startswith("//") or len(os.fsencode(path)) > _MAX_SUN_PATH:
        raise UsageError(f"{endpoint!r} names no usable socket.", mend="use unix:/path, at most 107 bytes.")
    return path


def fixed_path(env: Mapping[str, str]) -> str | None:
    """The socket that $MEMPALACE_BROKER names, None if it is not set. Raises UsageError as `unix_path`."""
    endpoint = env.get(ENDPOINT_VARIABLE, "").strip()
    return unix_path(endpoint, env) if endpoint else None


def look(files: StateFiles, env: Mapping[str, str]) -> Sighting:
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
        try:
            path = unix_path(endpoint, env)
        except UsageError:
            continue  # of a newer broker, or of no use here
        if endpoint.startswith(UNIX) and path not in paths:
            paths.append(path)
    if files.socket not in paths:
        files.check_socket_folder()
        paths.append(files.socket)
    return Sighting(record, paths)


def owner_note(files: StateFiles) -> dict[str, Any]:
    """What the palace's last owner wrote into its lock: {"pid", "endpoint", "root"}, or less, or nothing."""
    from ..runtime.lock import read_body

    try:
        note = load(read_body(files.owner_lock) or b"{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def record_state(sighting: Sighting, files: StateFiles) -> str:
    """The sighting as the election table knows it. For the rare path: asks the system about kernel and
    mounts.
    """
    record = sighting.record
    if isinstance(record, Bad):
        return RECORD_ABSENT if record.absent else RECORD_BAD
    from ..runtime.mounts import is_local
    from ..runtime.procid import boot_id, pid_namespace

    return kinship(record, boot=boot_id(), host=os.uname().nodename, pidns=pid_namespace(), local=is_local(files.root))
