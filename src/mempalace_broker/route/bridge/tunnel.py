"""The tunnel to the host's broker: a master, `ensure` over it, and the best transport that gets a request answered."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ...protocol.backoff import backoff
from ...system.clock import Deadline, fraction
from ...system.program_folders import shell_search
from ..machine.bridge import TransportMode, usable_modes
from ..machine.ssh_failures import EnsureReply, FailureKind, SshFailure, explain, last_words, read_ensure
from .master import OPEN_S, find_user_master, open_master
from .ssh import TunnelError
from .transports import ANSWERED, CONTROL_PREFIX, LOCAL_PREFIX, open_transport, ping
from .wire import DEFAULT_COMMAND

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ...system.clock import Clock
    from .master import Master
    from .ssh import Ssh
    from .transports import Transport

SET_UP_S = 40.0  # for all of it; a shim waits 45
ENSURE_S = 12.0  # over a master of the user's, which may be frozen; over our own as long as there is time
ASK_S = 5.0
RETRY_S = 5.0  # for a tunnel that worked before: sshd may be restarting
_PAUSE_S = 0.1
_MAX_PAUSE_S = 1.0
_MAX_BROKERS = 4  # in one set-up
_START = "start the broker there"
# The shell that ssh starts for a command often lacks the folders of pipx, uv and Homebrew in its PATH.
_ELSEWHERE = shell_search(DEFAULT_COMMAND, DEFAULT_COMMAND)


class Tunnel:
    """One tunnel. Its methods block, within limits.

    Args:
        ssh: for the target. folder: for sockets. note: is told what a successor would have to undo.
        say: is told what happens, for the log.

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
        self._transport: Transport | None = None
        self._mode: TransportMode | None = None
        self._frozen: set[str] = set()  # the user's control sockets whose host no longer answers
        self._program = ssh.target.command
        self._worked = False
        self._early: socket.socket | None = None  # opened during the last check, which saves a round trip
        self.started = False

    @property
    def fd(self) -> int:
        """Readable when the tunnel may have ended; -1 where there is none."""
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
        transport = self._transport
        return {"mode": transport.mode if transport else "", "over": over, "path": transport.path if transport else ""}

    # -- use

    def connect(self) -> socket.socket:
        """Return one more connection to the broker, perhaps one opened early. Raises OSError or TunnelError."""
        if self._transport is None:
            raise OSError("the tunnel is closed")
        early, self._early = self._early, None
        return early or self._transport.connect()

    def let_go(self) -> None:
        """Close an early connection that nobody used."""
        if self._early is not None:
            self._early.close()
            self._early = None

    def check(self, *, again: bool = False) -> bool:
        """Whether the broker answers over a new connection. `again`: a shim found that it does not."""
        if self._transport is None or self._master is None or not self.alive():
            return False
        if self._transport.mode is TransportMode.STDIO:
            # its command restarts the broker by itself: ask only where that failed
            before = self._program
            return not again or (
                isinstance(self._ensure(self._master, ENSURE_S), EnsureReply) and self._program == before
            )
        self.let_go()
        with contextlib.suppress(OSError, TunnelError):  # the ping reports it
            self._early = self._transport.connect()
        if ping(self._transport, Deadline.after(self._clock, ASK_S)) == ANSWERED:
            return True
        self.let_go()
        return False

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
        """Let go of the master and of everything that it carries."""
        self.let_go()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._master is not None:
            self._master.close()
            self._master = None
        self._note([])

    # -- set-up

    def set_up(self) -> None:
        """Open whatever is not open. TunnelError: that failed; it says why."""
        deadline = Deadline.after(self._clock, SET_UP_S)
        retry = Deadline.after(self._clock, RETRY_S if self._worked else 0.0)
        tries = 0
        while True:
            try:
                self._set_up(deadline)
            except TunnelError as exc:
                if not exc.failure.transient or retry.expired:
                    raise
                self._say(f"once more: {exc.failure.kind}")
                self._clock.sleep(backoff(tries, base=_PAUSE_S, cap=_MAX_PAUSE_S, rng=fraction))
                tries += 1
            else:
                self._worked = True
                return

    def _set_up(self, deadline: Deadline) -> None:
        if not self.alive():
            self.drop()
        master = self._master or self._user_master() or self._own_master(deadline)
        found = self._ensure(master, deadline.remaining() if master.ours else ENSURE_S)
        useless = (FailureKind.SILENT, FailureKind.BROKEN, FailureKind.OTHER)
        if isinstance(found, SshFailure) and not master.ours and found.kind in useless:
            self._say(f"your ControlMaster {master.control} is of no use: {found.kind}")
            if found.kind == FailureKind.SILENT:
                self._frozen.add(master.control)
            self.drop()
            master = self._own_master(deadline)
            found = self._ensure(master, deadline.remaining())
        if isinstance(found, SshFailure):
            if found.transient:
                self.drop()
            raise TunnelError(found)
        self.started = found.started
        self._open(master, found)

    def _user_master(self) -> Master | None:
        master = find_user_master(self._ssh)
        if master is not None and master.control in self._frozen:
            master.close()
            master = None
        self._master = master
        self._mode = None
        return master

    def _own_master(self, deadline: Deadline) -> Master:
        limit = Deadline.after(self._clock, min(OPEN_S, deadline.remaining()))
        try:
            self._master = open_master(self._ssh, self._name(CONTROL_PREFIX), limit)
        except TunnelError:
            self._frozen.clear()  # then we depend on the user's: it may only have been slow
            raise
        self._mode = None
        return self._master

    def _ensure(self, master: Master, limit: float) -> EnsureReply | SshFailure:
        """Start the broker on the host, if need be."""
        ran = self._ssh.run(self._ssh.command(master.control, self._program, "ensure"), limit)
        found = explain(_START, self._ssh.host, ran.status, ran.err)
        if found.kind == FailureKind.NOT_FOUND and self._ssh.target.command == DEFAULT_COMMAND:
            other = DEFAULT_COMMAND if self._program == _ELSEWHERE else _ELSEWHERE
            ran = self._ssh.run(self._ssh.command(master.control, other, "ensure"), limit)
            there = explain(_START, self._ssh.host, ran.status, ran.err)
            if there.kind != FailureKind.NOT_FOUND:
                self._program, found = other, there
        if ran.status == 0:
            said = read_ensure(ran.out)
            return said or explain(_START, self._ssh.host, 0, f"no endpoint in {ran.out[-200:]!r}")
        return found

    def _open(self, master: Master, found: EnsureReply) -> None:
        """Find the best transport that gets a request answered, or keep the one that does."""
        kept = self._transport
        if kept is not None and kept.path == found.path and self._ping(kept) == ANSWERED:
            return
        if kept is not None:
            kept.close()
            self._transport = None
        newer: EnsureReply | None = found
        for _ in range(_MAX_BROKERS):
            if newer is None:
                return
            newer = self._choose(master, newer)
        host = self._ssh.host.name
        raise TunnelError(
            SshFailure(
                FailureKind.BROKEN, f"brokers come and go on {host}.", f"on {host}: look at `mempalace-broker logs`."
            )
        )

    def _choose(self, master: Master, found: EnsureReply) -> EnsureReply | None:
        """Take the first transport that works. Return another broker that serves by now: it explains the failures."""
        reasons: list[str] = []
        for mode in usable_modes(found.path, self._mode):
            transport = self._try(mode, master, found.path, reasons)
            if transport is not None:
                self._transport, self._mode = transport, mode
                self._say(f"{mode} to {found.path} of {self._ssh.host.name}, over {self.describe()['over']}")
                return None
            newer = self._ensure(master, ENSURE_S)
            if isinstance(newer, EnsureReply) and newer.record != found.record:
                return newer
        words = "; ".join([*reasons, last_words(master.stderr())]).rstrip("; ")
        failure = explain(
            "reach the broker's socket", self._ssh.host, 255, f"{FailureKind.FORWARD_REFUSED}: open failed: {words}"
        )
        raise TunnelError(failure)

    def _try(self, mode: TransportMode, master: Master, path: str, reasons: list[str]) -> Transport | None:
        """The transport of that mode, if it works; else None and one more of `reasons`."""
        local = self._name(LOCAL_PREFIX)
        self._note([[master.control, f"{local}:{path}"]])  # before it exists: we may be killed in between
        try:
            transport = open_transport(mode, self._ssh, master, path, local=local, program=self._program)
        except TunnelError as exc:
            reasons.append(f"{mode}: {exc.message}")
            return None
        try:
            said = self._ping(transport)
        except BaseException:  # told to leave
            transport.close()
            raise
        if said == ANSWERED:
            return transport
        transport.close()
        reasons.append(f"{mode}: {said}")
        return None

    def _ping(self, transport: Transport) -> str:
        return ping(transport, Deadline.after(self._clock, ASK_S))

    def _name(self, prefix: str) -> str:
        return os.path.join(self._folder, prefix + os.urandom(6).hex())

    def close(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(TunnelError):
            self.drop()
