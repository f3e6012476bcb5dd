"""Which palace does a client mean, and where might its broker be? Reads names only; proves nothing, touches nothing.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import PalaceError, UsageError
from ..protocol.record import BadRecord, DiscoveryRecord, from_this_kernel
from ..system.file_trust import check_folders
from ..system.find_palace import resolve_palace
from ..system.paths import home_of
from ..system.record_file import RecordFile
from .machine.election import RECORD_ABSENT, RECORD_BAD, RECORD_FOREIGN, RECORD_MINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity
    from ..system.paths import Context, StateFiles
    from .endpoint import Endpoint
    from .machine.election import RecordSeen

ENDPOINT_VARIABLE = "MEMPALACE_BROKER"
NO_SPAWN_VARIABLE = "MEMPALACE_BROKER_NO_SPAWN"
_UNIX = "unix:"


def meant_palace(env: Mapping[str, str], flag: str | None = None, backend: str | None = None) -> PalaceIdentity:
    """`resolve_palace` for this environment; the engine is looked for only where versions differ.

    Without a home directory mempalace does not start; then only a broker that the user named can serve.

    Raises:
        PalaceError: as `resolve_palace`, or there is no home. UsageError: the settings that name the engine make no
            sense.
    """
    home = home_of(env)
    if not home and not (flag and env.get(ENDPOINT_VARIABLE)):
        raise PalaceError(
            f"there is no home directory: HOME is not set, and user {os.geteuid()} is not in the password file.",
            hint="set HOME in the environment of the agent, to a folder of its own",
        )

    def version(palace: str) -> tuple[int, ...]:
        from .engine_version import engine_version

        return engine_version(env, palace)

    return resolve_palace(flag, env, home, backend, version=version)


class Candidates:
    """What the files say: the `record` (or what is wrong with it) and the socket `paths` to dial, best first."""

    __slots__ = ("paths", "record")

    def __init__(self, record: DiscoveryRecord | BadRecord, paths: list[str]) -> None:
        self.record = record
        self.paths = paths


def fixed_endpoint(env: Mapping[str, str]) -> Endpoint | None:
    """The endpoint that $MEMPALACE_BROKER names, None if it is not set. Raises UsageError where it is not one."""
    text = env.get(ENDPOINT_VARIABLE, "").strip()
    if not text:
        return None
    from .endpoint import parse

    return parse(text, home_of(env))


def fixed_path(env: Mapping[str, str]) -> str | None:
    """The unix socket that $MEMPALACE_BROKER names, None if it is not set or names another kind of endpoint.

    Raises:
        UsageError: it is not an endpoint.
    """
    endpoint = fixed_endpoint(env)
    if endpoint is None:
        return None
    from .endpoint import UNIX

    return endpoint.path if endpoint.kind == UNIX else None


def discover(context: Context) -> Candidates:
    """Read the record; with or without a good one, also the name where the socket would be.

    Without a good record the note in the owner lock is read too: a broker of the same palace whose state root was
    named otherwise ($MEMPALACE_PATH) left its endpoint there.

    Raises:
        StateRootError: other users can write to the state root, the palace or the folder of the socket.
    """
    files = context.files
    check_folders((files.root, files.palace), _is_local)
    files.check_socket_folder()
    record = RecordFile(files.record).read()
    named = _noted(files) if isinstance(record, BadRecord) else record.endpoints if is_of(record, files) else []
    paths = [path for endpoint in named if (path := _socket(endpoint, context))]
    return Candidates(record, list(dict.fromkeys([*paths, files.socket])))


def _socket(endpoint: str, context: Context) -> str:
    """The path of the unix socket that a record names, "" where the endpoint is of no use here."""
    if endpoint == _UNIX + context.files.socket:
        return context.files.socket  # the usual case needs no parser
    if not endpoint.startswith(_UNIX):
        return ""  # for clients elsewhere
    from .endpoint import parse

    try:
        return parse(endpoint, home_of(context.env)).path
    except UsageError:
        return ""


def is_of(record: DiscoveryRecord, files: StateFiles) -> bool:
    """Whether a record may lead to a socket elsewhere: not one that came with a copy of another palace, or from another
    machine or boot, for its broker is that palace's.
    """
    if not record.lock or record.endpoints == [_UNIX + files.socket]:
        return True  # the second is the usual case, and costs nothing
    from ..system.kernel import boot_id, file_id

    return record.boot == boot_id() and record.lock == file_id(files.owner_lock)


def _noted(files: StateFiles) -> list[str]:
    """The endpoint in the owner lock, as a list of one or none."""
    from ..system.lock_notes import OwnerNote

    note = OwnerNote.read(files.owner_lock)
    return [note.endpoint] if note is not None else []


def record_state(record: DiscoveryRecord | BadRecord, root: str) -> RecordSeen:
    """The record of the state root `root` as the election table knows it.

    For the rare case that nobody listens: it asks the system about kernel and mounts.
    """
    if isinstance(record, BadRecord):
        return RECORD_ABSENT if record.absent else RECORD_BAD
    from ..locality.mounts import is_local
    from ..system.kernel import boot_id
    from ..system.process_ids import pid_namespace

    facts = {"boot": boot_id(), "host": os.uname().nodename, "pidns": pid_namespace()}
    return RECORD_MINE if from_this_kernel(record, **facts, local=is_local(root)) else RECORD_FOREIGN


def _is_local(path: str) -> bool | None:
    from ..locality.mounts import is_local  # late: folders usually pass without this

    return is_local(path)
