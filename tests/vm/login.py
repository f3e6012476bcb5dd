"""What a container's user has set up to reach the host by ssh: ~/.ssh-local/config in the guest, a command here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from tests.net.sshd import HOST, Sshd
from tests.vm.machine import HOST as ADDRESS
from tests.vm.machine import Machine

DOOR = 22  # the guest's way to the sshd

_INSTALL = """
set -eu
umask 077
mkdir -p "$HOME/.ssh-local"
cd "$HOME/.ssh-local"
printf %s "$KEY" > key
printf %s "$KNOWN" > known_hosts
printf %s "$CONFIG" > config
"""

# in the home of the password file, which need not be $HOME
_SETTINGS = """
set -eu
umask 077
cd "$(eval echo "~$(id -un)")"
mkdir -p .config/mempalace-broker
printf %s "$0" > .config/mempalace-broker/config.toml
"""


def give_login(machine: Machine, sshd: Sshd) -> None:
    """Let the guest's user log in here, as `ssh -F ~/.ssh-local/config host`."""
    folder = f"{machine.home}/.ssh-local"
    lines = [
        "Host host",
        f"HostName {ADDRESS}",
        f"Port {DOOR}",
        "User root",
        "ConnectTimeout 60",
        f"HostKeyAlias {HOST}",
        f"UserKnownHostsFile {folder}/known_hosts",
        f"IdentityFile {folder}/key",
        "IdentitiesOnly yes",
    ]
    env = {
        "KEY": sshd.key.read_text(),
        "KNOWN": sshd.known_hosts.read_text(),
        "CONFIG": "\n".join([*lines, ""]),
    }
    done = machine.run(["sh", "-c", _INSTALL], env=env)
    assert done.returncode == 0, done.stderr


def name_command(machine: Machine, wrapper: Path, command: Path | str, env: Mapping[str, str]) -> None:
    """Name in the guest's settings what ssh runs here: `command`, with the environment of the palace's user."""
    words = " ".join(shlex.quote(f"{name}={value}") for name, value in env.items())
    wrapper.write_text(f'#!/bin/sh\nexec env -i {words} {shlex.quote(str(command))} "$@"\n')
    wrapper.chmod(0o755)
    settings = f'[container]\nssh_command = "{wrapper}"\n'
    done = machine.run(["sh", "-c", _SETTINGS, settings])
    assert done.returncode == 0, done.stderr
