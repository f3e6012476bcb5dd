"""The facts that `doctor` judges, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..settings_files import SharedSettings
from ..system.process_ids import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..locality.locality import Locality
    from ..protocol.palace import PalaceIdentity
    from ..protocol.record import BadRecord, DiscoveryRecord
    from ..route.ask import BrokerReply
    from ..route.machine.election import RecordSeen
    from ..route.plan import Plan
    from ..system.paths import StateFiles
    from ..system.process_ids import ProcessState
    from .integrations import Integration
    from .open_files import OpenFile
    from .upstream_clients import HookRouting


@dataclass(frozen=True)
class FileEntry:
    """A name in the filesystem as lstat shows it; kind is "file", "dir", "socket", "link" or "other", "" if missing.

    writable: by us. others_write: by anybody else but root.
    """

    path: str
    kind: str = ""
    mode: int = 0
    uid: int = -1
    writable: bool = False
    others_write: bool = False


@dataclass(frozen=True)
class LockFacts:
    """A lock file: whether it is held (None: unknown), whose note is in it, and the state of that process."""

    path: str
    held: bool | None
    pid: int = 0
    process: ProcessState = UNKNOWN
    command: str = ""


@dataclass(frozen=True)
class UpstreamProcess:
    """A record of mempalace's own hub or daemon."""

    path: str
    kind: str
    pid: int
    alive: bool
    palace: str
    command: str = ""


@dataclass(frozen=True)
class FolderFacts:
    """A directory and its filesystem. `local`: None if not known. `free`: bytes. `read_only`: mounted read-only.

    exposed: a folder above it in which another user can put something else in its place, None if there is none.
    """

    entry: FileEntry
    filesystem: str
    local: bool | None
    free: int | None
    read_only: bool = False
    exposed: FileEntry | None = None


@dataclass(frozen=True)
class EngineFacts:
    """The mempalace that a broker started here would run, or why there is none."""

    interpreter: str = ""
    version: str = ""
    source: str = ""
    problem: str = ""
    hint: str = ""
    on_path: tuple[str, str] | None = None  # version and interpreter of another one, to which PATH leads


@dataclass(frozen=True)
class KeyFacts:
    """A line of an authorized_keys file that gives more than the memory."""

    path: str
    line: int
    why: str


@dataclass(frozen=True)
class AccessFacts:
    """What lets others in.

    Attributes:
        store_problem, store_hint: why no engine opens the palace. second_names: stores that have another name.
        distrusted: files beside the stores that the engine refuses to use, each with the reason.
        keys: lines of authorized_keys that run us and give too much.
        control: what is wrong with the ControlPath of the user's ssh configuration.
        graph_alone: the folder of the knowledge graph, where it has a mount that leaves the palace out; else "".
        mounted: whether the state root lies on a mount of its own. homes: of a home, what that mount brings with it.
    """

    store_problem: str = ""
    store_hint: str = ""
    second_names: list[str] = field(default_factory=list)
    distrusted: list[tuple[str, str]] = field(default_factory=list)
    keys: list[KeyFacts] = field(default_factory=list)
    control: str = ""
    graph_alone: str = ""
    mounted: bool = False
    homes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """Everything that `doctor` judges. Sizes in bytes, times in seconds since 1970."""

    identity: PalaceIdentity
    files: StateFiles
    palace: FolderFacts
    root: FolderFacts
    owner: LockFacts
    engine_lock: LockFacts
    start_lock: LockFacts
    record: DiscoveryRecord | BadRecord
    record_entry: FileEntry
    record_origin: RecordSeen
    record_process: ProcessState
    reply: BrokerReply
    socket: FileEntry
    lent_to: str  # the command of `exclusive` that has the palace for itself, since when; "" without one
    open_files: list[OpenFile]
    integrations: list[Integration]
    upstream_processes: list[UpstreamProcess]
    upstream_lock: LockFacts
    hook_routing: HookRouting
    proxy: str  # to which mempalace's clients would send requests for the broker, "" without one
    engine: EngineFacts
    model_state: str
    model_kind: str
    model_folder: str
    platform: str
    uid: int
    now: float
    locality: Locality
    access: AccessFacts
    version: str = __version__
    container: str = ""
    plan: Plan | None = None
    plan_problem: str = ""
    bridge: Mapping[str, Any] = field(default_factory=dict)
    has_palace: bool = False
    database: str = ""  # why the PostgreSQL of the palace does not answer; "" if it does, or there is none
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_problem: str = ""
    settings_hint: str = ""
    settings_path: str = ""
    shared_settings: SharedSettings = field(default_factory=SharedSettings)
    private_problem: str = ""
    state_folder: str = ""
    leftovers: list[str] = field(default_factory=list)
    last_exit: Mapping[str, Any] = field(default_factory=dict)
    last_backup: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    remote: str = ""  # the broker on another machine that $MEMPALACE_BROKER names; what lies here is not its own

    @property
    def status(self) -> dict[str, Any]:
        """The broker's own snapshot, empty without an answer."""
        return self.reply.answer or {}

    @property
    def engine_pid(self) -> int:
        """Our engine's, from the broker, else from the lock that only an engine holds; 0 without one."""
        said = self.status.get("engine", {}).get("pid")
        held = self.engine_lock.held and not self.lent_to
        return int(said or 0) or (self.engine_lock.pid if held else 0)
