"""The route to the broker of another machine over ssh, by way of the container's bridge.

All shims of one container and user share one *bridge* (route/bridge): a process that keeps a connection to the host
open. It listens on one private socket, and hands out connections to the broker as descriptors: afterwards nothing of
ours stands between shim and ssh. While a shim holds its connection to the bridge it counts as a user; the kernel closes
that connection however the shim ends, and the bridge's end however that ends.

`mp-shim` imports this module late, and only where the palace is another machine's: keep it lean all the same.
"""

from __future__ import annotations

import os
from _socket import socket as RawSocket

from ..errors import BrokerUnavailable
from .attempt import START_IF_NEEDED, Connected, Waiting
from .bridge.files import BridgeFiles
from .bridge.wire import AGAIN, ANSWER_READY, NEW, Answer
from .dial import dial
from .machine.election import CONNECT_DENIED, LOCK_HELD
from .start_under_lock import Daemon, StartUnderLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..system.clock import Deadline
    from ..system.spawn import StartPipe
    from .attempt import StartPolicy
    from .bridge.wire import SshTarget
    from .machine.election import LockSeen

_LOOK_S = 2.0  # between two looks at the deadline
_DOCTOR = "mempalace-broker doctor"

# Connections to bridges by folder: they make this process a user of the bridge, for its life, and outlive the route.
# A connection here also tells the next route that the one it got from that bridge is gone.
_held: dict[str, RawSocket] = {}


class SshRoute(StartUnderLock):
    """One attempt to reach the broker behind a target. With WAIT_ONLY it uses a bridge that is up, and no other.

    Args:
        target: where. env: for a bridge that is started.
        deadline, policy, rng: as `StartUnderLock` has them.
        spawn: `bridge.start.start_bridge`, and files: of this target's bridge; both replaceable in tests.
    """

    hear_s = _LOOK_S

    def __init__(
        self,
        target: SshTarget,
        deadline: Deadline,
        policy: StartPolicy,
        *,
        env: Mapping[str, str],
        spawn: Callable[..., StartPipe] | None = None,
        files: BridgeFiles | None = None,
        rng: Callable[[], float] | None = None,
    ) -> None:
        self.target = target
        self._files = files or BridgeFiles(target, env)
        where = self._files
        owns, hint = f"the tunnel to {target}", f"look at {where.log}."
        super().__init__(Daemon("bridge", owns, where, lock=where.lock, hint=hint), deadline, policy, rng=rng)
        self._env = env
        self._spawn = spawn
        self._bridge: RawSocket | None = None
        self._answer = Answer()

    def close(self) -> None:
        """Give up; a bridge that was started goes on, and leaves if nobody uses it."""
        super().close()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
        for fd in self._answer.fds:
            os.close(fd)
        self._answer = Answer()

    def _look(self, lock: LockSeen) -> Connected | Waiting | None:
        """Connect to the bridge and ask it, or go on listening to it."""
        if self._bridge is not None:
            return self._listen(self._bridge)
        dialled = dial(self._files.socket) if self._files.check() else None
        if dialled is None or dialled.nobody:
            return self._nobody(lock)
        if dialled.outcome == CONNECT_DENIED:
            raise BrokerUnavailable(f"{dialled.path}: {dialled.why}.", hint="run the agent as one user.")
        if dialled.sock is None:
            return self._pause("the bridge is busy")
        self._bridge = dialled.sock
        self._unlock()
        try:
            dialled.sock.send(AGAIN if self._files.folder in _held else NEW)
        except OSError:  # it leaves just now
            self._hang_up()
            return self._pause("the bridge left")
        return self._listen(dialled.sock)

    def _nobody(self, lock: LockSeen) -> Waiting | None:
        if self._policy.mode != START_IF_NEEDED:
            raise BrokerUnavailable(
                f"no bridge to {self.target} is up, so nothing is known of the broker there.",
                hint="mempalace-broker ensure, which opens one",
            )
        return self._pause("another client starts the bridge") if lock == LOCK_HELD else None

    def _listen(self, bridge: RawSocket) -> Connected | Waiting:
        """Wait for the bridge's answer."""
        self.why = f"the tunnel to {self.target} is being opened"
        answer = self._answer
        while not answer.complete:
            try:
                answer.receive(bridge)
            except BlockingIOError:
                if self._deadline.expired:
                    raise self._unavailable(self.why) from None
                return Waiting(min(self._deadline.remaining(), _LOOK_S), bridge.fileno(), self.why)
            if answer.ended:
                self._hang_up()
                return self._pause("the bridge left")
        return self._answered(bridge)

    def _answered(self, bridge: RawSocket) -> Connected:
        """Take the connection that came with the answer; BrokerUnavailable: none came."""
        said, fds = self._answer.fields(), self._answer.fds
        if said.get("state") != ANSWER_READY or len(fds) != 1:
            raise BrokerUnavailable(
                str(said.get("message") or f"the bridge to {self.target} said nothing sensible."),
                hint=str(said.get("hint") or _DOCTOR),
            )
        self._bridge = None
        before = _held.pop(self._files.folder, None)
        _held[self._files.folder] = bridge
        if before is not None:
            before.close()
        fd = fds.pop()
        os.set_inheritable(fd, False)
        sock = RawSocket(fileno=fd)
        sock.setblocking(False)
        self.close()
        return Connected(sock, str(self.target), said.get("started") is True)

    def _spawn_daemon(self) -> StartPipe:
        from .bridge.start import start_bridge

        return (self._spawn or start_bridge)(self.target, self._files, self._policy.started_by, self._env)

    def _unavailable(self, why: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"no broker over {self.target} in time: {why}.", hint=f"{_DOCTOR}; the log: {self._files.log}."
        )
