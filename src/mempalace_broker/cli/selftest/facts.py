"""The machine, as a report needs it. No host name, no user name."""

from __future__ import annotations

import platform
import resource
import sys
from typing import TYPE_CHECKING

from ... import __version__
from ...locality.locality import in_container
from ...locality.mounts import filesystem_of, is_local
from ...system import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .check import Bench

_SYSCTLS = ("kern.ipc.somaxconn", "net.local.stream.sendspace", "net.local.stream.recvspace")


def machine_facts(bench: Bench, share: Path | None = None) -> dict[str, str]:
    """Name -> value, in the order in which they are shown."""
    system = f"macOS {platform.mac_ver()[0]}" if kernel.MACOS else f"{platform.system()} {platform.release()}"
    soft, hard = (_number(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    facts = {
        "broker": f"{__version__} in {sys.prefix}",
        "system": f"{system} {platform.machine()}",
        "python": f"{platform.python_version()} {sys.executable}",
        "engine": f"{bench.engine.version} ({bench.engine.source})" if bench.engine else bench.no_engine,
        "started by": started_by(bench.users_env),
        "PATH": bench.users_env.get("PATH", ""),
        "descriptors": f"soft {soft}, hard {hard}",
        "filesystem": filesystem_of(str(bench.root)) or "unknown",
    }
    if share is not None:
        kind = filesystem_of(str(share))
        whose = {True: "this kernel's", False: "another kernel's", None: "not known whose"}[is_local(str(share))]
        facts["share"] = f"{kind or 'unknown'}, {whose}"
    if marked := in_container():
        facts["container"] = marked
    if kernel.MACOS:
        facts |= {name: kernel.run("sysctl", "-n", name) or "unknown" for name in _SYSCTLS}
    else:
        facts["net.core.somaxconn"] = kernel.read_small("/proc/sys/net/core/somaxconn") or "unknown"
    return facts


def started_by(env: Mapping[str, str]) -> str:
    """What started this process, as far as its environment tells: macOS grants access to folders by that."""
    if env.get("SSH_CONNECTION"):
        return "ssh"
    program = env.get("TERM_PROGRAM") or env.get("__CFBundleIdentifier")
    return program if program else "a terminal" if sys.stdin and sys.stdin.isatty() else "no terminal"


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
