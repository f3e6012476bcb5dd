"""The first words between shim and broker, and who fits whom.

    shim -> broker   {"id": "broker/hello", "method": "broker/hello", "params": {...}}       always the first line
    broker -> shim   {"id": "broker/hello", "result": {...}}                              or an error, then EOF
    shim -> broker   {"id": "broker/outcomes", "method": "broker/outcomes",             after a lost connection
                      "params": {"connection": k, "lines": [n, ...], "age_s": s, "epoch": generation}}
    broker -> shim   {"id": "broker/outcomes", "result": {"outcomes": {"n": {"state": ...}}}}

Every line that a shim sends on a connection has an ordinal: hello is 1, the next line 2, and so on. Both sides count,
nothing is rewritten. (session, connection, ordinal) names a write for ever: the engine notes it in the journal before
and after it runs the write, so its outcome can be proved after any of us was killed.

A bare MCP client on the socket need not greet; it has no session to resume.
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..errors import OTHER_PALACE
from .view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

WIRE_VERSION = 1
HELLO = "broker/hello"
OUTCOMES = "broker/outcomes"

# states of a write in the answer to broker/outcomes
DONE = "done"  # it ran; "response" holds what the engine answered, unless it was too large to keep
NOT_STARTED = "not_started"  # it never reached the engine: send it again
UNKNOWN = "unknown"  # it had begun and nobody knows how it ended


class Identity:
    """Which palace, by which route: two clients that differ in it must not be mixed silently.

    Args:
        path: real path of the palace directory.
        graph: real path of the knowledge graph that this choice of the palace implies.
        by: how the palace was chosen: "flag", "env", "config" or "default".
        backend: storage backend asked for, or None for mempalace's own choice.
        collection: collection asked for, or None for mempalace's own choice.
    """

    __slots__ = ("backend", "by", "collection", "graph", "path")

    def __init__(
        self, path: str, graph: str, by: str, backend: str | None = None, collection: str | None = None
    ) -> None:
        self.path = path
        self.graph = graph
        self.by = by
        self.backend = backend
        self.collection = collection

    def as_json(self) -> dict[str, str | None]:
        """As it stands in hello and in the record."""
        return {name: getattr(self, name) for name in ("path", "graph", "by", "backend", "collection")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Identity:
        """Read one back. Raises ValueError where path or graph is no string."""
        path, graph = data.get("path"), data.get("graph")
        if not isinstance(path, str) or not isinstance(graph, str):
            raise ValueError("a palace identity needs path and graph")
        backend, collection = data.get("backend"), data.get("collection")
        return cls(
            path,
            graph,
            str(data.get("by", "default")),
            backend if isinstance(backend, str) else None,
            collection if isinstance(collection, str) else None,
        )


def hello_request(
    *, session: str, connection: int, identity: Identity, client: str, pid: int, view: View | None = None
) -> dict[str, Any]:
    """The shim's first line. `session`: 32 hex digits, for the life of the shim; `connection`: 1, 2, ..."""
    params: dict[str, Any] = {
        "wire": WIRE_VERSION,
        "session": session,
        "connection": connection,
        "palace": identity.as_json(),
        "client": client,
        "pid": pid,
    }
    if view is not None:
        params["view"] = view.as_json()
    return {"jsonrpc": "2.0", "id": HELLO, "method": HELLO, "params": params}


class Verdict:
    """What a broker thinks of a hello: refused (`code`, `message`), or served with a `notice` and without `graph`.

    `elsewhere`: the client has another view of the files, and must translate paths; `same_kernel` as well as we.
    """

    __slots__ = ("code", "elsewhere", "graph_refused", "message", "notice", "same_kernel")

    def __init__(self, code: int = 0, message: str = "", notice: str = "", graph_refused: str = "") -> None:
        self.code = code
        self.message = message
        self.notice = notice
        self.graph_refused = graph_refused
        self.elsewhere = False
        self.same_kernel = True


def judge_hello(params: Mapping[str, Any], own: Identity, own_view: View | None = None) -> Verdict:
    """Decide whether a client's hello fits this broker.

    A client whose configuration leads to another knowledge graph is served, but its kg_* calls are refused with the
    reason: answering them from a graph that it never chose would be silent loss (failure F24).
    Where client and broker have different views of the files (a container), paths are not compared: under one kernel
    device and inode number of the palace are, across kernels whoever led the client here vouches for it.
    """
    wire = params.get("wire")
    if wire != WIRE_VERSION:
        return Verdict(
            OTHER_PALACE,
            f"this broker speaks wire version {WIRE_VERSION}, the client {wire!r}. "
            "Hint: install the same mempalace-broker on both sides, then `mempalace-broker restart`.",
        )
    palace = params.get("palace")
    if not isinstance(palace, dict):
        return Verdict()
    try:
        theirs = Identity.from_json(palace)
    except ValueError as exc:
        return Verdict(OTHER_PALACE, f"hello without a usable palace identity: {exc}.")
    view = View.from_json(params.get("view"))
    if view is None or own_view is None or own_view.same_files(view):
        return _judge_identity(own, theirs, elsewhere=False, same=None)
    verdict = _judge_identity(own, theirs, elsewhere=True, same=own_view.same_palace(view))
    verdict.elsewhere = True
    verdict.same_kernel = own_view.same_kernel(view)
    return verdict


def _judge_identity(own: Identity, theirs: Identity, *, elsewhere: bool, same: bool | None) -> Verdict:
    """`same`: whether it is the same palace by what the kernel says of it; None where only names can be compared."""
    path: str | None = theirs.path
    if elsewhere:
        path = f"{theirs.path} as its container sees it" if same is False else None
    for what, mine, other in (
        ("palace", own.path, path),
        ("backend", own.backend, theirs.backend),
        ("collection", own.collection, theirs.collection),
    ):
        if other is not None and mine != other:
            return Verdict(
                OTHER_PALACE,
                f"this broker serves {what} {mine or 'default'}, the client asks for {other}. "
                f"Hint: give every agent the same {what}, then `mempalace-broker restart`.",
            )
    if elsewhere:
        return _judge_graph(own, theirs)
    return Verdict() if theirs.graph == own.graph else _other_graph(own, theirs)


def _judge_graph(own: Identity, theirs: Identity) -> Verdict:
    """Graphs of two views: compared by where they lie beside their palaces."""
    mine, other = _graph_place(own), _graph_place(theirs)
    if mine and mine == other:
        return Verdict()
    if not mine or other:  # ours lies apart from the palace: a container's own, that goes with it
        return _other_graph(own, theirs)
    text = (
        f"your configuration (palace by {theirs.by}) leads to the knowledge graph {theirs.graph} of this container; "
        f"the broker serves the one that belongs to the palace, {own.graph}."
    )
    return Verdict(notice=text)


def _graph_place(identity: Identity) -> str:
    """ "palace" or "root" for a graph in or beside its palace, "" for one elsewhere."""
    folder = identity.graph.rpartition("/")[0]
    if folder == identity.path:
        return "palace"
    return "root" if folder == identity.path.rpartition("/")[0] else ""


def _other_graph(own: Identity, theirs: Identity) -> Verdict:
    text = (
        f"this palace is served with the knowledge graph {own.graph} (palace chosen by {own.by}), but your "
        f"configuration (by {theirs.by}) leads to {theirs.graph}. Knowledge graph calls are refused in this "
        "session. Hint: choose the palace the same way in every agent, with or without --palace."
    )
    return Verdict(notice=text, graph_refused=text)
