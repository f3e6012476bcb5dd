"""systemd and launchd, as far as a service of the user's own needs them: put a file in place, start it, ask, undo."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from ...errors import BrokerError, StateRootError, file_hint
from ...protocol.backoff import backoff
from ...system.clock import Clock, Deadline, fraction
from ...system.shared_files import make_folders, read_followed, replace_file
from ..programs import PROGRAM_S, run_program
from .units import launchd_plist, systemd_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .units import ServiceSpec

_SETTLE_S = 10.0
_MAX_FILE = 64 * 1024
_LINGER = "/var/lib/systemd/linger"


class ServiceState(NamedTuple):
    """What the manager says. `pid`: of the process that it runs, 0 for none."""

    installed: bool
    enabled: bool
    running: bool
    pid: int


class ServiceManager:
    """What both have in common. `name`: of the service. `file`: what install writes. `folders`: it may make them."""

    kind = ""

    def __init__(self, name: str, file: str, folders: Sequence[str]) -> None:
        self.name = name
        self.file = file
        self.folders = folders

    def content(self, spec: ServiceSpec) -> bytes:
        """The file of that service."""
        raise NotImplementedError

    def install(self, spec: ServiceSpec) -> str:
        """Put the service in place and have it run: "installed", "updated" or "unchanged".

        Raises:
            StateRootError: the file can't be written. BrokerError: the manager refuses; all is as it was before.
        """
        before, new = self._read(), self.content(spec)
        state = self.state()
        if before == new and state.enabled and state.running:
            return "unchanged"
        self._write(new)
        try:
            self._load(replaced=before is not None)
        except BrokerError:
            with contextlib.suppress(BrokerError):  # the first one says why
                if before is None:
                    self.uninstall()
                else:
                    self._write(before)
                    if state.enabled or state.running:
                        self._load(replaced=True)  # else the manager still goes by the new file, or has none
            raise
        return "installed" if before is None else "updated"

    def uninstall(self) -> bool:
        """Stop the service and remove whatever `install` made; whether there was one."""
        there = self._read() is not None
        state = self.state()
        if there or state.enabled or state.running:
            self._unload()
        self._remove()
        return there or state.enabled or state.running

    @property
    def lingers(self) -> bool | None:
        """Whether this user's services run without a session; None where the manager has no such setting."""
        return None

    @property
    def answers(self) -> bool:
        """Whether the manager runs here."""
        raise NotImplementedError

    def state(self) -> ServiceState:
        """Ask the manager. One that does not answer runs nothing."""
        raise NotImplementedError

    def _load(self, *, replaced: bool) -> None:
        raise NotImplementedError

    def _unload(self) -> None:
        raise NotImplementedError

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)
        for folder in self.folders:
            with contextlib.suppress(OSError):  # others use it, or it is not there
                os.rmdir(folder)

    def _read(self) -> bytes | None:
        try:
            return read_followed(self.file, _MAX_FILE)
        except OSError:
            return None

    def _write(self, content: bytes) -> None:
        try:
            make_folders(os.path.dirname(self.file))
            replace_file(self.file, content)
        except OSError as exc:
            hint = file_hint(exc, otherwise=f"make {os.path.dirname(self.file)} writable")
            raise StateRootError(f"cannot write {self.file}: {exc.strerror or exc}.", hint=hint) from exc


class Systemd(ServiceManager):
    """The systemd of this user (`systemctl --user`)."""

    kind = "systemd"

    def __init__(self, name: str, home: str) -> None:
        folder = os.path.join(home, ".config", "systemd", "user")
        self._wanted = os.path.join(folder, "default.target.wants", f"{name}.service")
        folders = (os.path.dirname(self._wanted), folder, os.path.dirname(folder))
        super().__init__(name, os.path.join(folder, f"{name}.service"), folders)

    def content(self, spec: ServiceSpec) -> bytes:
        """As ServiceManager says."""
        return systemd_unit(spec)

    def state(self) -> ServiceState:
        """As ServiceManager says."""
        wanted = "-p", "UnitFileState", "-p", "ActiveState", "-p", "MainPID"
        done = run_program(["systemctl", "--user", "show", f"{self.name}.service", *wanted])
        said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        pid = said.get("MainPID", "")
        return ServiceState(
            os.path.exists(self.file),
            said.get("UnitFileState") == "enabled",
            said.get("ActiveState") in ("active", "activating", "reloading"),
            int(pid) if pid.isdecimal() else 0,
        )

    @property
    def answers(self) -> bool:
        """As ServiceManager says."""
        return run_program(["systemctl", "--user", "show", "-p", "Version"]).returncode == 0

    @property
    def lingers(self) -> bool:
        """As ServiceManager says."""
        return os.path.exists(os.path.join(_LINGER, pwd.getpwuid(os.getuid()).pw_name))

    def _load(self, *, replaced: bool) -> None:
        self._tell("daemon-reload")
        self._tell("enable", f"{self.name}.service")
        self._tell("restart" if replaced else "start", f"{self.name}.service")

    def _unload(self) -> None:
        try:
            self._tell("disable", "--now", f"{self.name}.service")
        except BrokerError:  # none runs here: what it would remove, we do
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._wanted)

    def _remove(self) -> None:
        there = os.path.exists(self.file)
        super()._remove()
        if there:
            run_program(["systemctl", "--user", "daemon-reload"])
            run_program(["systemctl", "--user", "reset-failed", f"{self.name}.service"])

    def _tell(self, *words: str) -> None:
        done = run_program(["systemctl", "--user", *words])
        if done.returncode != 0:
            raise BrokerError(
                f"`systemctl --user {' '.join(words)}`: {_last_words(done)}.",
                hint="run this where `systemctl --user status` works: after a login, not after sudo or su; a system "
                "without systemd can start `mempalace-broker run --standby` as it starts other services",
            )


class Launchd(ServiceManager):
    """The launchd of this user, in the session of the desktop, else without one."""

    kind = "launchd"

    def __init__(self, name: str, home: str, clock: Clock | None = None) -> None:
        folder = os.path.join(home, "Library", "LaunchAgents")
        super().__init__(name, os.path.join(folder, f"{name}.plist"), (folder,))
        self._clock = clock or Clock()
        self._domains = (f"gui/{os.getuid()}", f"user/{os.getuid()}")

    def content(self, spec: ServiceSpec) -> bytes:
        """As ServiceManager says."""
        return launchd_plist(spec)

    def state(self) -> ServiceState:
        """As ServiceManager says."""
        domain, said = self._loaded()
        pid = next((line.partition("=")[2].strip() for line in said if line.strip().startswith("pid =")), "")
        there = os.path.exists(self.file)
        return ServiceState(there, bool(domain) and there, pid.isdecimal(), int(pid) if pid.isdecimal() else 0)

    @property
    def answers(self) -> bool:
        """As ServiceManager says."""
        return any(run_program(["launchctl", "print", domain]).returncode == 0 for domain in self._domains)

    def _loaded(self) -> tuple[str, list[str]]:
        """The domain that has the service, "" for none, and the words of launchd about it."""
        for domain in self._domains:
            done = run_program(["launchctl", "print", f"{domain}/{self.name}"])
            if done.returncode == 0:
                return domain, done.stdout.splitlines()
        return "", []

    def _load(self, *, replaced: bool) -> None:  # noqa: ARG002 - launchd knows it itself
        self._unload()
        told = []
        for domain in self._domains:
            done = run_program(["launchctl", "bootstrap", domain, self.file])
            if done.returncode == 0:
                return
            told.append(f"{domain}: {_last_words(done)}")
        raise BrokerError(
            f"launchctl does not load {self.file} ({'; '.join(told)}).",
            hint=f"if it was disabled: `launchctl enable {self._domains[0]}/{self.name}`, then try again",
        )

    def _unload(self) -> None:
        """Have launchd forget it, and wait until it has: it answers before the process has ended."""
        deadline = Deadline.after(self._clock, _SETTLE_S + PROGRAM_S)
        tries = 0
        while domain := self._loaded()[0]:
            if deadline.expired:
                raise BrokerError(
                    f"launchd does not let go of {domain}/{self.name}.", hint=f"launchctl bootout {domain}/{self.name}"
                )
            run_program(["launchctl", "bootout", f"{domain}/{self.name}"])
            self._clock.sleep(backoff(tries, base=0.05, cap=1.0, rng=fraction))
            tries += 1


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit status {done.returncode}"
