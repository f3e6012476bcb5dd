"""A throwaway sshd in one directory, with a client's configuration for it. Touches nothing in /etc or ~/.ssh.

Beyond the directory it needs only /run/sshd, which sshd insists on. StrictModes is off because parents of a temporary
directory are writable by all, PAM because it would ask the machine's accounts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import proctools
from tests.proctools import eventually

HOST = "palacehost"  # its name in the configuration, known_hosts goes by it
START_S = 20.0
SBIN = "/usr/sbin:/sbin:/usr/local/sbin"


def lacking() -> str:
    """Why no sshd can run here; empty where one can."""
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    missing = [tool for tool in ("ssh", "sshd", "ssh-keygen") if shutil.which(tool, path=path) is None]
    return f"no {', '.join(missing)} (Debian: apt install openssh-server openssh-client)" if missing else ""


def require_sshd() -> None:
    """Skip the test where no sshd can run; in CI that is a failure."""
    if lack := lacking():
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(lack)
        pytest.skip(lack)


class Sshd:
    """An sshd and its client's configuration.

    Args:
        folder: for all its files; short, because sockets lie in it. address: where it listens.
        env: what sessions have in their environment; PATH in it finds the command.
        options: more lines for sshd_config. key_options: options before the key in authorized_keys.

    Attributes:
        config: the client's configuration file. key: the client's private key. port: where it listens.
    """

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str],
        address: str = "127.0.0.1",
        options: Sequence[str] = (),
        key_options: str = "",
    ) -> None:
        self.folder = folder
        self.address = address
        self.config = folder / "config"
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "sshd.log"
        self._env = dict(env)
        self._options = list(options)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("host_key", "key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        self.port = proctools.free_port(address)
        self.allow(key_options)
        self.trust(folder / "host_key.pub")
        self.configure()
        self.start()

    # --- files

    def allow(self, key_options: str) -> None:
        """What the client's key may do, from the next connection on."""
        public = (self.folder / "key.pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{key_options} {public}".lstrip())

    def trust(self, public: Path) -> None:
        """Which host key the client expects."""
        kind, key, *_ = public.read_text().split()
        self.known_hosts.write_text(f"{HOST} {kind} {key}\n")

    def configure(self, *lines: str) -> None:
        """Write the client's configuration, with more `lines` for the host."""
        common = [
            f"HostName {self.address}",
            f"Port {self.port}",
            "User root" if os.geteuid() == 0 else "",
            f"HostKeyAlias {HOST}",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            f"IdentityFile {self.key}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
        ]
        body = "".join(f"  {line}\n" for line in [*lines, *common] if line)
        self.config.write_text(f"Host {HOST}\n{body}")

    # --- life

    def start(self) -> None:
        """Start it, or start it again on the same port."""
        variables = " ".join(f'"{name}={value}"' for name, value in self._env.items())
        lines = [
            f"ListenAddress {self.address}",
            f"Port {self.port}",
            f"HostKey {self.folder}/host_key",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "UseDNS no",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 100",
            f"SetEnv {variables}",
            *self._options,
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        program = shutil.which("sshd", path=SBIN)
        assert program is not None
        with self.log.open("ab") as log:
            argv = [program, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._listens, START_S, "sshd to listen")

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"sshd ended: {self.log.read_text()}")
        with socket.socket() as probe:
            probe.settimeout(1)
            probe.connect((self.address, self.port))
        return True

    def stop_listening(self) -> None:
        """End the listener; connections that are open go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def connections(self) -> list[int]:
        """Pids of the processes that serve one connection each."""
        if self._process is None:
            return []
        return proctools.children_of(self._process.pid)

    def end_connections(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to all of them."""
        for pid in self.connections():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        """End it and every connection."""
        self.end_connections(signal.SIGCONT)
        self.end_connections(signal.SIGTERM)
        self.stop_listening()

    # --- the user's side

    def argv(self, *words: str) -> list[str]:
        """ssh to it, as a user types it."""
        return ["ssh", "-F", str(self.config), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ssh -F config words...` to its end."""
        return subprocess.run(
            self.argv(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )

    def master(self) -> int:
        """Open the ControlMaster that the configuration names, as a user does; its pid."""
        done = self.run("-fNT", "-o", "ControlMaster=auto", "-o", "ControlPersist=yes", HOST)
        assert done.returncode == 0, done.stderr
        return self.master_pid()

    def master_pid(self) -> int:
        """Pid of the user's master, 0 where there is none."""
        said = self.run("-O", "check", HOST).stderr
        return int(said.partition("pid=")[2].partition(")")[0] or 0)

    def end_master(self) -> None:
        """End the ControlMaster, as a user does."""
        self.run("-O", "exit", HOST)


@contextlib.contextmanager
def sshd(folder: Path, *, env: Mapping[str, str], **options: Any) -> Iterator[Sshd]:
    """An sshd for the time of the block; arguments as Sshd."""
    made = Sshd(folder, env=env, **options)
    try:
        yield made
    finally:
        made.close()
