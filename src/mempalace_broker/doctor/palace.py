"""Findings about the palace and its directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..system.find_palace import PALACE_VARIABLES
from .findings import error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts, FolderFacts
    from .findings import Finding

LOW_DISK, NO_DISK = 1 << 30, 50 << 20


def palace(facts: Facts) -> Iterator[Finding]:
    """Which palace, why this one, and whether it has drawers."""
    chosen = f"{facts.identity.path} (by {facts.identity.by}), knowledge graph {facts.identity.graph}"
    if not facts.palace.entry.kind:
        yield info("palace", f"{chosen}; not there yet, the first write creates it")
    elif not facts.has_palace:
        yield info("palace", f"{chosen}; empty so far")
    else:
        yield ok("palace", chosen)
    if facts.container and facts.access.graph_alone:
        yield warn(
            "palace",
            f"{facts.access.graph_alone} is mounted from elsewhere, but {facts.identity.path} is this container's own",
            "if that palace is the host's (`mempalace-broker status` there), mount its folder too, see "
            "docs/topologies.md",
        )
    for name, value in facts.variables.items():
        yield info(
            "environment",
            f"{name}={value}: agents that get another environment (Codex, the MCP SDKs) do not see it",
            "name the palace in mempalace's config.json, or by --palace in every agent's config"
            if name in PALACE_VARIABLES
            else "set it for mp-shim in every agent's config",
        )


def directories(facts: Facts) -> Iterator[Finding]:
    """Owner, mode, filesystem and free space of the palace and of its state root."""
    folders = [("palace directory", facts.palace)]
    if facts.files.root != facts.identity.path:
        folders.append(("state root", facts.root))
    for name, folder in folders:
        yield from _directory(name, folder, facts.uid)
        yield from _mount(name, folder, facts)
        yield from _disk(name, folder)


def _directory(name: str, folder: FolderFacts, uid: int) -> Iterator[Finding]:
    entry = folder.entry
    if folder.read_only:
        what = f"{entry.path} is on a filesystem that is mounted read-only: no broker can start there"
        yield error(name, what, "mount it writable, or name a palace elsewhere (--palace)")
        return
    if not entry.kind:
        return
    if entry.kind != "dir":
        yield error(name, f"{entry.path} is a {entry.kind}, not a directory", "give another palace (--palace)")
    elif entry.uid not in (uid, 0) or not entry.writable:
        yield error(
            name,
            f"{entry.path} (uid {entry.uid}) is not yours (uid {uid}), or not writable",
            f"sudo chown -R {uid} {entry.path}, or run agents as its owner",
        )
    elif entry.others_write:
        say = warn if folder.local is False else error  # another kernel's mounts may show any mode
        yield say(
            name,
            f"{entry.path} can be written by others (mode {entry.mode:o}): no broker starts there",
            f"chmod go-w {entry.path}",
        )
    elif folder.exposed is None:
        yield ok(name, f"{entry.path} is yours (mode {entry.mode:o})")
    if folder.exposed is not None:
        above = folder.exposed
        theirs = above.uid not in (uid, 0) and not above.others_write
        why = (
            f"belongs to another user (uid {above.uid})"
            if theirs
            else f"can be written by others (mode {above.mode:o})"
        )
        yield warn(
            name,
            f"{above.path}, which leads to {entry.path}, {why}: they can put a link or another palace in its place",
            f"{f'sudo chown {uid}' if theirs else 'chmod go-w'} {above.path}, or move the palace to a folder of yours",
        )


def _mount(name: str, folder: FolderFacts, facts: Facts) -> Iterator[Finding]:
    kind = folder.filesystem or "unknown type"
    if facts.platform == "darwin" and folder.local is None:
        yield info(f"{name}: filesystem", "this system does not tell; locks are good on a Mac's own disks")
    elif folder.local:
        yield ok(f"{name}: filesystem", f"{kind}, local to this kernel: locks and sockets mean something")
    else:
        yield info(
            f"{name}: filesystem",
            f"{kind}: another kernel may have it mounted too, and locks can't be trusted here",
        )


def _disk(name: str, folder: FolderFacts) -> Iterator[Finding]:
    if folder.free is None:
        return
    amount = f"{folder.free / (1 << 30):.1f} GB free"
    if folder.free < NO_DISK:
        yield error(f"{name}: disk", f"{amount}: writes will fail", "free some space")
    elif folder.free < LOW_DISK:
        yield warn(f"{name}: disk", f"{amount}: the index needs room to be rewritten", "free some space")
    else:
        yield ok(f"{name}: disk", amount)
