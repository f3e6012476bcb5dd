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


def judge_hello(params: Mapping[str, Any], own: PalaceIdentity, own_view: FileView | None = None) -> HelloVerdict:
    """Decide whether a client's hello fits this broker.

    A client whose configuration leads to another knowledge graph is served, but its kg_* calls are refused with the
    reason: to answer them from a graph that it never chose would be silent loss.
    Where client and broker see the files differently (a container), paths are not compared. Under one kernel the
    palace's device and inode numbers are; across kernels the route by which the client came has to be trusted.
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
    view = FileView.from_json(params.get("view"))
    if view is None or own_view is None or own_view.same_files(view):
        return _judge_identity(own, theirs, same_files=True, same_palace=None)
    verdict = _judge_identity(own, theirs, same_files=False, same_palace=own_view.same_palace(view))
    verdict.same_files = False
    verdict.same_kernel = own_view.same_kernel(view)
    return verdict


def _judge_identity(
    own: PalaceIdentity, theirs: PalaceIdentity, *, same_files: bool, same_palace: bool | None
) -> HelloVerdict:
    """`same_palace`: whether the kernel says that it is the same directory; None where it can't say."""
    path: str | None = theirs.path
    if not same_files:
        path = f"{theirs.path} as its container sees it" if same_palace is False else None
    for what, mine, other in (
        ("palace", own.path, path),
        ("backend", own.backend, theirs.backend),
        ("collection", own.collection, theirs.collection),
    ):
        if other is not None and mine != other:
            return HelloVerdict(
                OTHER_PALACE,
                f"this broker serves {what} {mine or 'default'}, the client asks for {other}. "
                f"Hint: give every agent the same {what}, then `mempalace-broker restart`.",
            )
    if not same_files:
        return _judge_graph(own, theirs)
    return HelloVerdict() if theirs.graph == own.graph else _other_graph(own, theirs)


def _judge_graph(own: PalaceIdentity, theirs: PalaceIdentity) -> HelloVerdict:
    """Compare the graphs of two views by where they lie relative to their palaces."""
    mine, other = _graph_folder(own), _graph_folder(theirs)
    if mine and mine == other:
        return HelloVerdict()
    if not mine or other:  # ours lies apart from the palace: a container's own, which disappears with it
        return _other_graph(own, theirs)
    text = (
        f"your configuration (palace by {theirs.by}) leads to the knowledge graph {theirs.graph} of this container; "
        f"the broker serves the one that belongs to the palace, {own.graph}."
    )
    return HelloVerdict(notice=text)


def _graph_folder(identity: PalaceIdentity) -> str:
    """ "palace" or "root" for a graph in or beside its palace, "" for any other folder."""
    folder = identity.graph.rpartition("/")[0]
    if folder == identity.path:
        return "palace"
    return "root" if folder == identity.path.rpartition("/")[0] else ""


def _other_graph(own: PalaceIdentity, theirs: PalaceIdentity) -> HelloVerdict:
    text = (
        f"this palace is served with the knowledge graph {own.graph} (palace chosen by {own.by}), but your "
        f"configuration (by {theirs.by}) leads to {theirs.graph}. Knowledge graph calls are refused in this "
        "session. Hint: choose the palace the same way in every agent, with or without --palace."
    )
    return HelloVerdict(notice=text, graph_refused=text)
