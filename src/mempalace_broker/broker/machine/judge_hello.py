"""Which client fits this broker: one palace, one wire version, and file names that mean the same to both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import OTHER_PALACE
from ...protocol.hello import WIRE_VERSION
from ...protocol.palace import FileView, PalaceIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class HelloVerdict:
    """How a broker answers a hello: it refuses (`code`, `message`) or serves.

    Attributes:
        code, message: the JSON-RPC error that refuses the client; 0 and "" where it is served.
        notice: what the user of the client should know. graph_refused: why kg_* calls are refused, "" if they aren't.
        same_files: whether a path means the same file to both; where it doesn't, the client translates paths.
        same_kernel: whether both run under one kernel.
    """

    code: int = 0
    message: str = ""
    notice: str = ""
    graph_refused: str = ""
    same_files: bool = True
    same_kernel: bool = True


_DEFAULT_BACKEND = "chroma"


def judge_hello(
    params: Mapping[str, Any], own: PalaceIdentity, own_view: FileView | None = None, backend: str | None = None
) -> HelloVerdict:
    """Decide whether a client's hello fits this broker. `backend`: the engine's, where it has told.

    A client whose configuration leads to another knowledge graph is served, but its kg_* calls are refused with the
    reason: to answer them from a graph that it never chose would be silent loss. Who names a broker elsewhere by its
    address has chosen its graph.
    A palace has many names: under one kernel its device and inode decide. Without those, names are compared where both
    see the same files; across kernels the route by which the client came has to be trusted.
    """
    wire = params.get("wire")
    if wire != WIRE_VERSION:
        return HelloVerdict(
            OTHER_PALACE,
            f"this broker speaks wire version {WIRE_VERSION}, the client {wire!r}. "
            "Hint: install the same mempalace-broker on both sides, then `mempalace-broker restart`.",
        )
    palace = params.get("palace")
    if not isinstance(palace, dict):
        return HelloVerdict()
    try:
        theirs = PalaceIdentity.from_json(palace)
    except ValueError as exc:
        return HelloVerdict(OTHER_PALACE, f"hello without a usable palace identity: {exc}.")
    own_view = own_view or FileView()
    view = FileView.from_json(params.get("view")) or FileView(own_view.boot, own_view.mnt)
    serves = own.backend or backend or _DEFAULT_BACKEND
    refused = _other_palace(own, theirs, own_view, view)
    if not refused and theirs.backend not in (None, serves):
        refused = _differs("backend", serves, str(theirs.backend))
    verdict = refused or _judge_graph(own, theirs, own_view, view)
    verdict.same_files, verdict.same_kernel = own_view.same_files(view), own_view.same_kernel(view)
    return verdict


def _other_palace(
    own: PalaceIdentity, theirs: PalaceIdentity, own_view: FileView, view: FileView
) -> HelloVerdict | None:
    same = own_view.same_palace(view)
    if own_view.same_files(view):
        return None if theirs.path == own.path or same else _differs("palace", own.path, theirs.path)
    return _differs("palace", own.path, f"{theirs.path} as its container sees it") if same is False else None


def _differs(what: str, mine: str, other: str) -> HelloVerdict:
    return HelloVerdict(
        OTHER_PALACE,
        f"this broker serves {what} {mine}, the client asks for {other}. "
        f"Hint: give every agent the same {what}, then `mempalace-broker restart`.",
    )


def _judge_graph(own: PalaceIdentity, theirs: PalaceIdentity, own_view: FileView, view: FileView) -> HelloVerdict:
    same = own_view.same_graph(view)
    if not own_view.same_files(view):
        chosen = same or view.named
        return HelloVerdict() if chosen else _judge_graph_beyond(own, theirs, across=not own_view.same_kernel(view))
    if not (theirs.graph == own.graph if same is None else same):
        return _other_graph(own, theirs)
    return HelloVerdict(notice=_other_name(own, theirs) if own_view.same_neighbours(view) is False else "")


def _judge_graph_beyond(own: PalaceIdentity, theirs: PalaceIdentity, *, across: bool) -> HelloVerdict:
    """Compare the graphs of two views by where they lie relative to their palaces.

    Args:
        across: the client is on another kernel, where no container of ours has its own graph.
    """
    mine, other = _graph_folder(own, in_home=across), _graph_folder(theirs, in_home=across)
    if mine and mine == other:
        return HelloVerdict()
    if not mine or other:  # ours lies apart from the palace: a container's own, which disappears with it
        return _other_graph(own, theirs)
    text = (
        f"your configuration (palace by {theirs.by}) leads to the knowledge graph {theirs.graph} of this container; "
        f"the broker serves the one that belongs to the palace, {own.graph}."
    )
    return HelloVerdict(notice=text)


def _graph_folder(identity: PalaceIdentity, *, in_home: bool) -> str:
    """ "palace" or "root" for a graph in or beside its palace, "" for any other folder.

    Args:
        in_home: "root" also for the two folders of one home that mempalace 3.10 and newer use by default.
    """
    folder, root = identity.graph.rpartition("/")[0], identity.path.rpartition("/")[0]
    if folder == identity.path:
        return "palace"
    home = folder.removesuffix("/.mempalace")
    return "root" if folder == root or (in_home and home != folder and root == f"{home}/.config/mempalace") else ""


def _other_graph(own: PalaceIdentity, theirs: PalaceIdentity) -> HelloVerdict:
    text = (
        f"this palace is served with the knowledge graph {own.graph} (palace chosen by {own.by}), but your "
        f"configuration (by {theirs.by}) leads to {theirs.graph}. Knowledge graph calls are refused in this "
        "session. Hint: choose the palace the same way in every agent, with or without --palace."
    )
    return HelloVerdict(notice=text, graph_refused=text)


def _other_name(own: PalaceIdentity, theirs: PalaceIdentity) -> str:
    return (
        f"this palace is open by the name {own.name}, with the tunnels and hallways beside it; by your configuration's "
        f"name, {theirs.name}, there are others. Hint: give every agent the same name of the palace."
    )
