"""The files that make a service manager run a broker: a systemd unit, a launchd property list. Pure."""

from __future__ import annotations

import os
import plistlib
from typing import NamedTuple

RESTART_S = 3
_FINAL = "2 73 78"  # wrong usage, files that can't be placed, invalid settings: a restart changes nothing


class ServiceSpec(NamedTuple):
    """What to run. `argv`: begins with an absolute path. `env`: besides what the manager gives."""

    name: str
    palace: str
    argv: tuple[str, ...]
    env: dict[str, str]


def systemd_unit(spec: ServiceSpec) -> bytes:
    """A unit of the user's own systemd. The broker alone gets SIGTERM: it ends its engine itself."""
    lines = [
        "[Unit]",
        f"Description=MemPalace broker of {_one_line(spec.palace)}".replace("%", "%%"),
        "",
        "[Service]",
        "ExecStart=" + " ".join(_quoted(word).replace("$", "$$") for word in _startable(spec.argv)),
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in spec.env.items()),
        "Restart=always",
        f"RestartSec={RESTART_S}",
        f"RestartPreventExitStatus={_FINAL}",
        "KillMode=mixed",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return os.fsencode("\n".join(lines))


def _startable(argv: tuple[str, ...]) -> tuple[str, ...]:
    """systemd starts no program with such signs in its path, but a shell with whatever arguments."""
    unsafe = any(char in "\"'\\$%\x7f" or char < " " for char in argv[0])
    return ("/bin/sh", "-c", 'exec "$0" "$@"', *argv) if unsafe else argv


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(word: str) -> str:
    r"""For a line of a unit: in quotes, with \ " and % made plain, line feeds and the like by number."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + "".join(char if char >= " " else f"\\x{ord(char):02x}" for char in plain) + '"'


def launchd_plist(spec: ServiceSpec) -> bytes:
    """A job of the user's own launchd, with the priority of what a person waits for."""
    job = {
        "Label": spec.name,
        "ProgramArguments": list(spec.argv),
        "EnvironmentVariables": spec.env,
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 10,
        "ProcessType": "Interactive",
        "LimitLoadToSessionType": ["Aqua", "Background"],  # of the desktop, and of a login over ssh
        "Umask": 0o077,
    }
    return plistlib.dumps(job)
