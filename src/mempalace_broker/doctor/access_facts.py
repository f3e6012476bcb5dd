"""Looks at what lets others in: stores with other names, ssh keys, a control socket, what a container has mounted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import BrokerError
from ..locality.machine.path_map import Mount, mount_of, under
from ..locality.mounts import mount_table
from ..route.bridge.master import control_path, distrust_control
from ..route.bridge.ssh import Ssh
from ..system.palace_stores import check_stores, distrusted
from ..system.paths import BESIDE_PALACE
from ..system.private import private_home
from ..system.shared_files import read_followed
from .facts import AccessFacts, KeyFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..protocol.palace import PalaceIdentity
    from ..route.plan import Plan
    from ..system.paths import StateFiles

_KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")
_MOST_KEYS = 1 << 20  # bytes of one of them
_OF_A_HOME = (".config/mempalace-broker", ".local/state/mempalace-broker", ".ssh")
_OPEN = ("port-forwarding", "permitopen", "permitlisten")


def look_at_access(identity: PalaceIdentity, files: StateFiles, plan: Plan | None) -> AccessFacts:
    """Look at all of it; what can't be read counts as not there."""
    problem, hint, names = "", "", []
    try:
        names = check_stores(identity.path, identity.graph)
    except BrokerError as exc:
        problem, hint = exc.message, exc.hint
    mounts = mount_table()
    mount = mount_of(files.root, mounts)
    return AccessFacts(
        store_problem=problem,
        store_hint=hint,
        second_names=names,
        distrusted=list(_distrusted(identity, files)),
        keys=[key for name in _KEY_FILES for key in _keys(os.path.join(private_home(), name))],
        control=_control(plan),
        graph_alone=graph_alone(identity, mounts),
        mounted=mount is not None and mount.point != "/",
        homes=_homes(files.root, mount),
    )


def _distrusted(identity: PalaceIdentity, files: StateFiles) -> Iterator[tuple[str, str]]:
    root, journal = os.path.split(files.journal)
    yield from distrusted(root, (journal, journal + ".1", os.path.basename(files.start_lock)))
    yield from distrusted(os.path.realpath(os.path.dirname(identity.name)), BESIDE_PALACE)


def _control(plan: Plan | None) -> str:
    if plan is None or plan.ssh is None:
        return ""
    try:
        control = control_path(Ssh(plan.ssh))
    except BrokerError:
        return ""  # there is no ssh, which the bridge reports
    return distrust_control(control) if control else ""


def graph_alone(identity: PalaceIdentity, mounts: list[Mount]) -> str:
    """The folder of the knowledge graph, where it is mounted into a home in which the palace is the home's own.

    A host whose first mempalace was 3.10 or newer has them in two folders, of which a container may have only one.
    """
    folder = os.path.dirname(identity.graph)
    home, graph, palace = (mount_of(path, mounts) for path in (os.path.dirname(folder), folder, identity.path))
    if identity.by != "default" or home is None or graph is None or palace is None:
        return ""
    return folder if graph.point != home.point == palace.point else ""


def _homes(root: str, mount: Mount | None) -> list[str]:
    """Folders of a home beside the state root that the same mount brings in."""
    parent = os.path.dirname(root)
    if mount is None or mount.point == "/" or under(parent, mount.point) is None:
        return []
    return [path for path in (os.path.join(parent, name) for name in _OF_A_HOME) if os.path.lexists(path)]


def _keys(path: str) -> Iterator[KeyFacts]:
    try:
        text = read_followed(path, _MOST_KEYS).decode("utf-8", "replace")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if why := distrust_key(line):
            yield KeyFacts(path, number, why)


def distrust_key(line: str) -> str:
    """Why a line of authorized_keys gives more than the memory, "" if it doesn't, or is not about us."""
    options = _options(line.strip())
    command = options.get("command", "")
    if "mempalace-broker" not in command:
        return ""
    if "ssh-command" not in command:
        return "it runs another command than ssh-command: whoever has the key counts as you, not as a guest"
    if "restrict" not in options:
        return "it does not say restrict: the key can forward ports, your agent and X11"
    if _OPEN[0] in options and not all(name in options for name in _OPEN):
        return (
            "it allows port-forwarding without permitopen and permitlisten: the key reaches every port of this machine"
        )
    return ""


def _options(line: str) -> dict[str, str]:
    """The options before a key, in lower case, with their values."""
    found: dict[str, str] = {}
    word, quoted, escaped = "", False, False
    for char in line:
        if not quoted and char in " \t,":
            name, _, value = word.partition("=")
            found[name.lower()] = value
            word = ""
            if char != ",":
                return found
            continue
        if char == '"' and not escaped:
            quoted = not quoted
        escaped = char == "\\" and not escaped
        word += char
    return {}  # no key follows
