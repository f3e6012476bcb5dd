"""The route to a broker of this kernel: dial its unix socket, else start a broker, else wait and dial again.

What an observation permits is decided by route/machine/election alone; how one of many clients starts the broker is
told in start_under_lock. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..errors import BrokerUnavailable
from ..protocol.record import BadRecord
from ..system.kernel import LINUX
from ..system.unix_socket import peer_process
from .attempt import ONCE, START_IF_NEEDED, WAIT_ONLY, Connected, StartPolicy, Waiting
from .dial import dial, dial_any
from .discover import ENDPOINT_VARIABLE, NO_SPAWN_VARIABLE, discover, fixed_path, record_state
from .machine.election import (
    AVOID,
    CONNECT,
    CONNECT_TIMEOUT,
    LOCK_FREE,
    LOCK_HELD,
    RECORD_ABSENT,
    START,
    TAKE_LOCK,
    WAIT,
    decide,
)
from .start_under_lock import Daemon, StartUnderLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocol.record import DiscoveryRecord
    from ..system.clock import Deadline
    from ..system.paths import Context
    from ..system.spawn import StartPipe
    from ..system.unix_socket import PeerProcess
    from .dial import Dialled
    from .discover import Candidates
    from .machine.election import Action, LockSeen

_STATUS = "mempalace-broker status"
HANDOVER_LOOK_S = 0.05


class UnixRoute(StartUnderLock):
    """One attempt to reach the broker of one palace, resumable.

    Args:
        context: the palace. In its environment, MEMPALACE_BROKER names an endpoint beside which nothing else is tried,
            and MEMPALACE_BROKER_NO_SPAWN=1 turns START_IF_NEEDED into WAIT_ONLY.
        deadline, policy, rng: as `StartUnderLock` has them.
        direct: the broker to start opens a palace that belongs to another kernel; its lease decides, not the locality.
        spawn: `start.start_broker`, replaceable in tests.
    """

    hear_s = 0.1

    def __init__(
        self,
        context: Context,
        deadline: Deadline,
        policy: StartPolicy | None = None,
        *,
        direct: bool = False,
        rng: Callable[[], float] | None = None,
        spawn: Callable[..., StartPipe] | None = None,
    ) -> None:
        policy = policy or StartPolicy()
        if policy.mode == START_IF_NEEDED and context.env.get(NO_SPAWN_VARIABLE, "") not in ("", "0"):
            policy = policy.with_mode(WAIT_ONLY)
        files = context.files
        daemon = Daemon("broker", "the palace", files, lock=files.owner_lock, hint=_STATUS)
        super().__init__(daemon, deadline, policy, rng=rng)
        self._context = context
        self._direct = direct
        self._spawn = spawn
        self._refused = ""  # what the system said to the last dial
        self._stale_record = ""  # id of the record of a broker that no longer listens
        self._locality_checked = False
        self._guest: PeerProcess | None = None  # a container's broker that has, or had, the palace
        self._told = False  # whether it was told to leave

    def _look(self, lock: LockSeen) -> Connected | Waiting | None:
        """One observation and its action."""
        fixed = fixed_path(self._context.env)
        if fixed is not None:
            return self._look_at(fixed)
        candidates = discover(self._context)
        dialled = self._dial(candidates.paths)
        if dialled.nobody or dialled.outcome == CONNECT_TIMEOUT:  # a share may answer a dial with any error
            self._check_locality()
        if dialled.nobody:
            self._stale_record = _record_id(candidates)
            if self._direct:
                self._check_neighbour(candidates.record)
        root = self._context.files.root
        record = record_state(candidates.record, root) if dialled.nobody else RECORD_ABSENT  # matters only then
        action = decide(lock=lock, record=record, connect=dialled.outcome)
        if self._is_a_guests(dialled):
            return self._take_over(lock)
        if action == CONNECT:
            return self._connected(dialled)
        if action == START and self._guest is not None and self._owner_stays():
            return self._still_leaving()
        if action == START or (action == TAKE_LOCK and self._policy.mode == START_IF_NEEDED):
            return None
        if action in (WAIT, TAKE_LOCK):
            return self._pause(self._reason(dialled))
        raise self._refusal(action)

    def _look_at(self, path: str) -> Connected | Waiting:
        """$MEMPALACE_BROKER: dial that and nothing else, start nothing."""
        dialled = dial(path)
        if dialled.sock is not None:
            return self._connected(dialled)
        return self._pause(f"${ENDPOINT_VARIABLE} names {path}, where nobody answers ({dialled.why})")

    def _dial(self, paths: list[str]) -> Dialled:
        try:
            dialled = dial_any(paths)
        except BrokerUnavailable:
            self._check_locality()  # a share may forbid it, which is no sandbox then
            raise
        if dialled.sock is None:
            self._refused = f"{dialled.path}: {dialled.why}"
        return dialled

    # -- the host never uses a broker of a guest

    def _is_a_guests(self, dialled: Dialled) -> bool:
        """Whether the listener is a process of a container that we see from outside: then we are its host.

        A sound host's broker is not inside; so whoever only connects to it pays for a look at /proc.
        """
        if dialled.sock is None or not LINUX:
            return False
        peer = peer_process(dialled.sock)
        if not peer.inside:
            return False
        dialled.sock.close()
        dialled.sock = None
        if self._guest is None or self._guest.pid != peer.pid:
            self._guest, self._told = peer, False
        return True

    def _take_over(self, lock: LockSeen) -> Waiting | None:
        """Tell the container's broker to leave, once the start lock is ours: so that no guest starts the next one."""
        from .handover import tell_to_leave

        assert self._guest is not None
        if self._policy.mode != START_IF_NEEDED:
            return self._pause(f"a container's broker (pid {self._guest.pid}) has the palace, and none starts here")
        if lock == LOCK_FREE and self._lock is None:
            return None
        if lock == LOCK_HELD:
            return self._pause("another client takes the palace over from a container's broker")
        if not self._told:
            tell_to_leave(self._guest, self._context.identity.path)
            self._told = True
        return self._still_leaving()

    def _still_leaving(self) -> Waiting:
        """Look again soon, and keep the start lock meanwhile."""
        assert self._guest is not None
        self.why = f"a container's broker (pid {self._guest.pid}) was told to leave and has not left yet"
        if self._deadline.expired:
            raise self._unavailable(self.why)
        self._not_before = self._clock.monotonic() + HANDOVER_LOOK_S
        return Waiting(min(HANDOVER_LOOK_S, self._deadline.remaining()), -1, self.why)

    def _owner_stays(self) -> bool:
        from ..system.lock import is_held

        return bool(is_held(self._daemon.lock))

    def _connected(self, dialled: Dialled) -> Connected:
        assert dialled.sock is not None
        self._unlock()
        self.why = ""
        return Connected(dialled.sock, dialled.path, self._started)

    def _check_locality(self) -> None:
        """Nobody answers: does that prove anything here? Behind a kernel boundary it proves nothing."""
        if self._direct or self._locality_checked:
            return
        from ..locality.locality import NoElectionHere, locate

        locality = locate(self._context.files, self._context.identity.graph)
        if locality.foreign:
            raise NoElectionHere(locality)
        self._locality_checked = True

    def _check_neighbour(self, record: DiscoveryRecord | BadRecord) -> None:
        """Raise where a direct broker of another container of this kernel serves: its socket is in that container."""
        from ..system.process_ids import pid_namespace

        if isinstance(record, BadRecord) or record.pidns == pid_namespace() or not self._owner_stays():
            return
        from ..protocol.text import printable

        raise BrokerUnavailable(
            f"a broker in another container of this machine ({printable(record.host)}, pid {record.pid} there) has "
            f"{self._context.identity.path} open, and listens inside that container only.",
            hint="run these agents in that container, or let all of them use the host's broker over ssh or tcp; "
            "see docs/topologies.md",
        )

    def _spawn_daemon(self) -> StartPipe:
        from .start import start_broker

        spawn = self._spawn or start_broker
        extra = {"direct": True} if self._direct else {}
        return spawn(self._context, started_by=self._policy.started_by, **extra)

    def _served_meanwhile(self) -> Connected | None:
        """Another broker may serve while ours waits for the palace in vain: its starter was killed, and the start
        lock gone with it, before it could serve. The TypeScript SDK kills its probe so and comes again at once.
        """
        if self._pipe is None:
            return None
        candidates = discover(self._context)
        record = candidates.record
        if isinstance(record, BadRecord) or record.record == self._stale_record:
            return None  # a broker that serves publishes its record at once; the record says whether it is ours
        dialled = self._dial(candidates.paths)
        if dialled.sock is None or self._is_a_guests(dialled):
            return None
        self._started = record.started_by == self._policy.started_by
        self.close()
        return self._connected(dialled)

    def _reason(self, dialled: Dialled) -> str:
        if not dialled.nobody:
            return f"a broker owns this socket but does not accept ({self._refused})"
        if self._policy.mode == START_IF_NEEDED:
            from ..system.lock_notes import read_starter

            pid = read_starter(self._context.files.start_lock) or "unknown"
            return f"another client (pid {pid}) is starting the broker"
        return f"nobody listens ({self._refused})"

    def _unavailable(self, why: str) -> BrokerUnavailable:
        hint = _STATUS
        if self._policy.mode == WAIT_ONLY and ENDPOINT_VARIABLE not in self._context.env:
            hint = f"run `mempalace-broker ensure` on the palace's host; {NO_SPAWN_VARIABLE}=0 lets one start here."
        elif self._policy.mode == ONCE:
            hint = "mempalace-broker ensure"
        elif self._context.env.get(ENDPOINT_VARIABLE):
            hint = f"start the broker that listens there, or unset {ENDPOINT_VARIABLE}."
        if self._guest is not None:
            hint = f"stop the container, or `kill {self._guest.pid}`; then mempalace-broker ensure."
        return BrokerUnavailable(f"no broker for {self._context.identity.path}: {why}.", hint=hint)

    def _refusal(self, action: Action) -> BrokerUnavailable:
        record = self._context.files.record
        if action == AVOID:
            return BrokerUnavailable(
                f"{record} was written on another machine or virtual machine, whose broker "
                f"may be alive and can't be reached from here ({self._refused}).",
                hint=f"stop that broker; if it no longer exists, remove {record}.",
            )
        return BrokerUnavailable(f"not allowed: {self._refused}.", hint="run the agent as the owner of the palace.")


def _record_id(candidates: Candidates) -> str:
    return "" if isinstance(candidates.record, BadRecord) else candidates.record.record
