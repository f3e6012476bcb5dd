"""Whether mempalace's own hooks, commands and servers find the broker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ..protocol.jsonrpc import load_object
from ..system.find_palace import config_dir
from ..system.program_folders import numbers_of
from ..system.shared_files import read_followed

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECT = "direct"
HOST = "127.0.0.1"
_LIMIT = 1 << 20
_ROUTES_SINCE = (3, 8)
_VARIABLES = ("MEMPALACE_HOOK_WRITE_ROUTING", "MEMPALACE_WRITE_ROUTING")


class HookRouting(NamedTuple):
    """How mempalace's hooks save: with "prefer" and "require" through the broker, with "direct" by themselves.

    Attributes:
        path: of mempalace's config.json.
    """

    policy: str
    path: str

    @property
    def leads_here(self) -> bool:
        """Return whether hooks save through the broker."""
        return self.policy in ("prefer", "require")


def knows_routing(version: str) -> bool:
    """Return whether the hooks of this version of mempalace can save through a broker; "" stands for an unknown one."""
    return numbers_of(version) >= _ROUTES_SINCE


def hook_routing(env: Mapping[str, str], home: str) -> HookRouting:
    """Read the environment and config.json as mempalace from 3.8 on does."""
    path = os.path.join(config_dir(env, home), "config.json")
    try:
        config = load_object(read_followed(path, _LIMIT))
    except OSError:
        config = {}
    section = config.get("write_routing")
    said = [env.get(name) for name in _VARIABLES]
    said += [section.get(name) for name in ("hooks", "default")] if isinstance(section, dict) else []
    hooks = config.get("hooks")
    if isinstance(hooks, dict) and hooks.get("daemon") is True:  # as before 3.8
        said.append("prefer")
    policy = next((value for value in said if value is not None), DIRECT)
    return HookRouting(str(policy).strip().lower(), path)


def proxy_in_the_way(env: Mapping[str, str]) -> str:
    """Return the proxy to which mempalace's clients send requests for the broker, "" without one."""
    proxy = env.get("http_proxy") or ("" if "REQUEST_METHOD" in env else env.get("HTTP_PROXY", ""))
    if not proxy:
        return ""
    exempt = env.get("no_proxy") or env.get("NO_PROXY", "")
    return "" if {"*", HOST} & {name.strip() for name in exempt.split(",")} else proxy
