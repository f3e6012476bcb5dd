"""Findings about who gets in besides the user: by ssh keys, listeners, other names of stores, containers."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ..protocol.text import printable
from ..route.discover import NO_SPAWN_VARIABLE
from ..settings import TCP_ANY
from ..system.palace_stores import remedy
from .findings import error, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts
    from .findings import Finding

_MOST = 5  # names in one finding


def stores(facts: Facts) -> Iterator[Finding]:
    """Stores that no engine opens, and those that a snapshot shares."""
    found = facts.access
    if found.store_problem:
        yield error("stores", found.store_problem, found.store_hint)
    elif found.second_names:
        names = ", ".join(map(printable, found.second_names[:_MOST]))
        yield warn(
            "stores",
            f"{len(found.second_names)} have another name (hard link), such as {names}: a snapshot that was made so "
            "changes with the palace and is not a backup",
            "make the next one by `cp -a --reflink=auto`, or by rsync into another folder; remove this one",
        )


def shared_files(facts: Facts) -> Iterator[Finding]:
    """Files beside the stores that the engine refuses to use."""
    for path, why in facts.access.distrusted:
        name = printable(path)
        yield error("shared file", f"{name} can't be trusted, {why}: calls that need it fail", remedy(name))


def keys(facts: Facts) -> Iterator[Finding]:
    """Lines of authorized_keys that run us and give more than the memory."""
    for key in facts.access.keys:
        yield warn(
            "ssh key",
            f"line {key.line} of {key.path}: {key.why}",
            'write it so: command="mempalace-broker ssh-command",restrict ssh-ed25519 ...; docs/topologies.md',
        )


def listener(facts: Facts) -> Iterator[Finding]:
    """The TCP listener: who can reach it."""
    said = facts.status.get("tcp") or {}
    asked = str(said.get("asked") or facts.settings.get("tcp", {}).get("value") or "")
    if not asked:
        return
    where = str(said.get("endpoint") or asked)
    if asked == TCP_ANY or _is_public(asked) or _is_public(where.rpartition(":")[0].rpartition("/")[2].strip("[]")):
        yield warn(
            "tcp listener",
            f"{printable(where)}: other machines reach it, and lines over TCP are not encrypted",
            f'set tcp = "docker", or one private address, in {facts.settings_path or "config.toml"}, '
            "then `mempalace-broker restart`; use ssh beyond this machine",
        )
    else:
        yield ok("tcp listener", printable(where))


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_unspecified or found.is_global


def control(facts: Facts) -> Iterator[Finding]:
    """The ControlPath of the user's ssh configuration."""
    if facts.access.control:
        yield warn(
            "ControlPath",
            f"{printable(facts.access.control)}: the bridge does not use that connection",
            "name a path in your home in the ssh configuration: ControlPath ~/.ssh/cm-%C",
        )


def container(facts: Facts) -> Iterator[Finding]:
    """What a container should not have, where the palace comes from outside."""
    if not facts.container or not facts.access.mounted:
        return
    if facts.access.homes:
        names = ", ".join(map(printable, facts.access.homes))
        yield warn(
            "container",
            f"more than {facts.files.root} is mounted here: {names}. Whoever gets into this container can change the "
            "settings and programs of your host, and none of docs/security.md holds",
            f"mount the state root alone: -v ~/.mempalace:{facts.files.root}",
        )
    if facts.variables.get(NO_SPAWN_VARIABLE, "0") == "0" and not facts.locality.foreign:
        yield warn(
            "container",
            "a shim here may start the palace's broker in this container, and the host's sessions have to end it first",
            f"export {NO_SPAWN_VARIABLE}=1 here, and run `mempalace-broker ensure` on the host",
        )
