"""The way to the host's broker: master, `ensure`, and the best of the means that gets a request answered."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ...protocol.backoff import backoff
from ...system.clock import Deadline, fraction
from ..machine.bridge import STDIO, modes, ssh_version
from ..machine.ssh_failures import (
    BROKEN,
    FORWARD_REFUSED,
    NOT_FOUND,
    OTHER,
    SILENT,
    Ensured,
    Trouble,
    explain,
    last_words,
    read_ensure,
)
from ..ssh import DEFAULT_COMMAND
from . import transports as ways
from .master import LOCAL_S, OPEN_S, find_users, open_own
from .ssh import TunnelError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ...system.clock import Clock
    from .master import Master
    from .ssh import Ssh
    from .transports import Transport

SET_UP_S = 40.0  # all of it; a shim waits 45
ENSURE_S = 12.0  # over a master of the user's, which may be frozen; over our own as long as there is time
ASK_S = 5.0
RETRY_S = 5.0  # for a way that worked before: sshd may just restart
_PAUSE_S = 0.1
_MAX_PAUSE_S = 1.0
_MAX_BROKERS = 4  # in one set-up
_START = "start the broker there"
# Where pipx and uv put it; a shell that ssh starts for a command often does not know that folder.
_ELSEWHERE = "~/.local/bin/mempalace-broker"


class Tunnel:
    """See the module. Blocks while it works, within limits.

    Args:
        ssh: for the target. folder: for sockets. clock: time. note: told what a successor would have to undo.
        say: told what happens, for the log.

    Attributes:
        started: whether the last set-up started the broker.
    """

    def __init__(
        self,
        ssh: Ssh,
        folder: str,
        clock: Clock,
        *,
        note: Callable[[list[list[str]]], None],
        say: Callable[[str], None],
    ) -> None:
        self._ssh = ssh
        self._folder = folder
        self._clock = clock
        self._note = note
        self._say = say
        self._master: Master | None = None
        self._way: Transport | None = None
        self._mode = ""
        self._frozen: set[str] = set()  # control sockets of the user's whose host no longer answers
        self._program = ssh.target.command
        self._worked = False
        self._version: tuple[int, int] | None = None
        self.started = False

    @property
    def fd(self) -> int:
        """Readable when the way may have ended; -1 where there is none."""
        return self._master.fd if self._master else -1

    @property
    def probes(self) -> bool:
        """Whether a frozen host would go unnoticed: our own connection ends by itself."""
        return self._master is not None and not self._master.ours

    def alive(self) -> bool:
        """Whether the connection to the host is there, as far as this machine can tell."""
        return self._master is not None and self._master.alive()

    def describe(self) -> dict[str, str]:
        """For people: "mode", "over", "path"."""
        over = "" if self._master is None else "a connection of its own" if self._master.ours else "your ControlMaster"
        way = self._way
        return {"mode": way.mode if way else "", "over": over, "path": way.path if way else ""}

    # -- use

    def connect(self) -> socket.socket:
        """One more connection to the broker. OSError, TunnelError: there is none to be had."""
        if self._way is None:
            raise OSError("there is no way")
        return self._way.connect()

    def check(self, *, again: bool = False) -> bool:
        """Whether the broker answers over a new connection. `again`: somebody found that it does not."""
        if self._way is None or self._master is None or not self.alive():
            return False
        if self._way.mode == STDIO:  # its command starts a broker that is gone, by itself; ask only why it can't
            return not again or isinstance(self._ensure(self._master, ENSURE_S), Ensured)
        return ways.answers(self._way, Deadline.after(self._clock, ASK_S)) == ways.ANSWERED

    def frozen(self) -> bool:
        """Whether the host no longer answers: any end of a command there, however bad, is an answer."""
        if self._master is None:
            return False
        ran = self._ssh.run(self._ssh.command(self._master.control, "true"), ASK_S)
        if ran.status is not None:
            return False
        self._frozen.add(self._master.control)
        return True

    def drop(self) -> None:
        """Let go of the master and all that goes over it."""
        if self._way is not None:
            self._way.close()
            self._way = None
        if self._master is not None:
            self._master.close()
            self._master = None
        self._note([])

    # -- set-up

    def set_up(self) -> None:
        """Open what is not open. TunnelError: it can't be; says why."""
        deadline = Deadline.after(self._clock, SET_UP_S)
        retry = Deadline.after(self._clock, RETRY_S if self._worked else 0.0)
        tries = 0
        while True:
            try:
                self._set_up(deadline)
            except TunnelError as exc:
                if not exc.trouble.transient or retry.expired:
                    raise
                self._say(f"once more: {exc.trouble.kind}")
                self._clock.sleep(backoff(tries, base=_PAUSE_S, cap=_MAX_PAUSE_S, rng=fraction))
                tries += 1
            else:
                self._worked = True
                return

    def _set_up(self, deadline: Deadline) -> None:
        if not self.alive():
            self.drop()
        master = self._master or self._users() or self._own(deadline)
        found = self._ensure(master, deadline.remaining() if master.ours else ENSURE_S)
        if isinstance(found, Trouble) and not master.ours and found.kind in (SILENT, BROKEN, OTHER):
            self._say(f"your ControlMaster {master.control} is of no use: {found.kind}")
            if found.kind == SILENT:
                self._frozen.add(master.control)
            self.drop()
            master = self._own(deadline)
            found = self._ensure(master, deadline.remaining())
        if isinstance(found, Trouble):
            if found.transient:
                self.drop()
            raise TunnelError(found)
        self.started = found.started
        self._open(master, found)

    def _users(self) -> Master | None:
        master = find_users(self._ssh)
        if master is not None and master.control in self._frozen:
            master.close()
            master = None
        self._master = master
        self._mode = ""
        return master

    def _own(self, deadline: Deadline) -> Master:
        limit = Deadline.after(self._clock, min(OPEN_S, deadline.remaining()))
        try:
            self._master = open_own(self._ssh, self._name(ways.CONTROL_PREFIX), limit)
        except TunnelError:
            self._frozen.clear()  # we can't do without his, then: it may have been slow only
            raise
        self._mode = ""
        return self._master

    def _ensure(self, master: Master, limit: float) -> Ensured | Trouble:
        """Have the broker started on the host, if need be."""
        ran = self._ssh.run(self._ssh.command(master.control, self._program, "ensure"), limit)
        found = explain(_START, self._ssh.place, ran.status, ran.err)
        if found.kind == NOT_FOUND and self._program == DEFAULT_COMMAND:
            ran = self._ssh.run(self._ssh.command(master.control, _ELSEWHERE, "ensure"), limit)
            if ran.status == 0:
                self._program = _ELSEWHERE
            elif explain(_START, self._ssh.place, ran.status, ran.err).kind != NOT_FOUND:
                found = explain(_START, self._ssh.place, ran.status, ran.err)
        if ran.status == 0:
            said = read_ensure(ran.out)
            return said or explain(_START, self._ssh.place, 0, f"no endpoint in {ran.out[-200:]!r}")
        return found

    def _open(self, master: Master, found: Ensured) -> None:
        """Find the best means that gets a request answered, or keep the one that does."""
        if self._way is not None and self._way.path == found.path and self._ask(self._way) == ways.ANSWERED:
            return
        if self._way is not None:
            self._way.close()
            self._way = None
        newer: Ensured | None = found
        for _ in range(_MAX_BROKERS):
            if newer is None:
                return
            newer = self._choose(master, newer)
        host = self._ssh.place.host
        raise TunnelError(
            Trouble(BROKEN, f"brokers come and go on {host}.", f"on {host}: look at `mempalace-broker logs`.")
        )

    def _choose(self, master: Master, found: Ensured) -> Ensured | None:
        """Take the first means that works. If another broker serves by now, it was not the means' fault: that one."""
        reasons: list[str] = []
        for mode in modes(self._ssh_version(), found.path, self._mode):
            way = self._try(mode, master, found.path, reasons)
            if way is not None:
                self._way, self._mode = way, mode
                self._say(f"{mode} to {found.path} of {self._ssh.place.host}, over {self.describe()['over']}")
                return None
            newer = self._ensure(master, ENSURE_S)
            if isinstance(newer, Ensured) and newer.record != found.record:
                return newer
        words = "; ".join([*reasons, last_words(master.words())]).rstrip("; ")
        trouble = explain("reach the broker's socket", self._ssh.place, 255, f"{FORWARD_REFUSED}: open failed: {words}")
        raise TunnelError(trouble)

    def _try(self, mode: str, master: Master, path: str, reasons: list[str]) -> Transport | None:
        """That means, if it works; else None and one more of `reasons`."""
        local = self._name(ways.LOCAL_PREFIX)
        self._note([[master.control, f"{local}:{path}"]])  # before it is done: we may be killed in between
        try:
            way = ways.make(mode, self._ssh, master, path, local=local, program=self._program)
        except TunnelError as exc:
            reasons.append(f"{mode}: {exc.message}")
            return None
        try:
            said = self._ask(way)
        except BaseException:  # told to leave
            way.close()
            raise
        if said == ways.ANSWERED:
            return way
        way.close()
        reasons.append(f"{mode}: {said}")
        return None

    def _ask(self, way: Transport) -> str:
        return ways.answers(way, Deadline.after(self._clock, ASK_S))

    def _name(self, prefix: str) -> str:
        return os.path.join(self._folder, prefix + os.urandom(6).hex())

    def _ssh_version(self) -> tuple[int, int]:
        if self._version is None:
            self._version = ssh_version(self._ssh.run(self._ssh.version(), LOCAL_S).err.encode())
        return self._version

    def close(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(TunnelError):
            self.drop()
