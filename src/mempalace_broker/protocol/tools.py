"""What each tool of mempalace does to the palace, and what follows for us.

To add a tool, add a row to `_RULES` below; nothing else has to change. `_read`, `_again` and `_once` say what may
happen to a call whose engine died; the arguments of a row are the attributes of `ToolRule`. Find them out by reading
mempalace's source and by executing the tool twice: that is how every row was made, for 3.4.0 and 3.11.0. A tool
without a row gets the most cautious rule: an exclusive write that is never sent again. The engine's `readOnlyHint` is
never wrong, but it marks 14 of 47 tools in 3.11.0 and none in 3.4.0, so the table is ours.

Lanes follow the store, never the read/write side: a session that pipelines `create_tunnel` and `list_tunnels` must
see them run in that order, and calls of two lanes may overtake each other.

Replay assumes that the broker repeats a call on a fresh engine *before anything else runs there*. Knowledge graph
writes need that: `kg_add` returns the same fact only while the fact is open, so an overlapping `kg_invalidate` would
turn its repetition into a second fact. Of two graph writes under way at once, neither is safe to repeat: the free
lane has to run one *write* at a time.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar

    Arguments = Mapping[str, Any]
    Condition = Callable[[Arguments], bool]

NO_LIMIT = float("inf")  # seconds
WAIT_DEFAULT_MS = 60_000  # mempalace: tool_event_wait
WAIT_MAX_MS = 300_000  # mempalace: logstream.MAX_WAIT_TIMEOUT_MS
WAIT_GRACE_S = 5.0


class Lane(str):
    """Where a call runs; calls of one lane keep their order within a session."""

    __slots__ = ()

    PALACE: ClassVar[Lane]  # Chroma and the JSON files beside it: one call at a time
    FREE: ClassVar[Lane]  # knowledge graph, logstream, constants: stores with locks of their own
    WAIT: ClassVar[Lane]  # blocks by design and holds nothing meanwhile


Lane.PALACE = Lane("palace")
Lane.FREE = Lane("free")
Lane.WAIT = Lane("wait")


class Replay(str):
    """What to do with a call that was under way when its engine died."""

    __slots__ = ()

    READ: ClassVar[Replay]  # it changes nothing: run it again
    IDEMPOTENT: ClassVar[Replay]  # a second run changes nothing more: run it again
    NEVER: ClassVar[Replay]  # a second run would be a second write: the outcome is unknown


Replay.READ = Replay("read")
Replay.IDEMPOTENT = Replay("idempotent")
Replay.NEVER = Replay("never")


class RunLimit(str):
    """How long a call may run."""

    __slots__ = ()

    BROKER: ClassVar[RunLimit]  # as long as the broker's setting says
    NONE: ClassVar[RunLimit]  # minutes to hours by nature
    OWN: ClassVar[RunLimit]  # as long as its own `timeout_ms` says


RunLimit.BROKER = RunLimit("broker")
RunLimit.NONE = RunLimit("none")
RunLimit.OWN = RunLimit("own")


class ToolRule:
    """One row of the table; immutable by convention.

    Attributes:
        name: tool name as in tools/list; empty for a tool that is not in the table.
        known: False for the rule of tools that are not in the table.
        writes: whether it may change a store, with the arguments that make it do so; see `may_write`.
        writes_if: for a tool that writes only with certain arguments, whether these do. mempalace tests truth, not
            type: {"apply": "false"} applies.
        store: "chroma", "json", "graph", "logstream", "home" or "" (no store).
        graph: whether it reads or writes the knowledge graph.
        lane, replay, limit: see the classes above.
        never_again_if: the arguments that make an idempotent tool one that must not run twice.
        embed: name of the argument whose text is embedded as one piece when it is short, or None.
        paths: names of the arguments that name files on the caller's machine. Labels that are only compared
            with stored labels (`source_file`) don't.
        read_only_ok: whether a read-only session may call it: it writes nothing, or, as mempalace has it, nothing that
            a client asked to change.
        gone_ok: whether a repeated call that finds nothing did its work the first time. This is how they report it:
            delete_drawer {"success": false, "error": "Drawer not found: <id>"}; delete_drawers an "error" of that
            text in the item's slot, counted in "errors"; delete_hallway {"deleted": false}.
        check_with: the tool with which an agent finds out whether a write of unknown outcome is stored, or "".
    """

    def __init__(
        self,
        name: str,
        *,
        store: str,
        lane: Lane,
        writes: bool,
        replay: Replay,
        limit: RunLimit = RunLimit.BROKER,
        embed: str | None = None,
        paths: tuple[str, ...] = (),
        gone_ok: bool = False,
        read_only_ok: bool = False,
        check_with: str = "",
        known: bool = True,
        writes_if: Condition | None = None,
        never_again_if: Condition | None = None,
    ) -> None:
        self.name = name
        self.known = known
        self.store = store
        self.graph = store == "graph"
        self.writes = writes
        self.writes_if = writes_if
        self.lane = lane
        self.replay = replay
        self.never_again_if = never_again_if
        self.limit = limit
        self.embed = embed
        self.paths = paths
        self.gone_ok = gone_ok
        self.read_only_ok = read_only_ok or not writes
        self.check_with = check_with

    def __repr__(self) -> str:
        kind = "writes" if self.writes else "reads"
        return f"<ToolRule {self.name or 'unknown'} {kind} {self.store or 'nothing'} {self.lane} {self.replay}>"

    def may_write(self, arguments: object) -> bool:
        """Whether a call with these arguments may write: `sync` without `apply` does not."""
        if not self.writes or self.writes_if is None:
            return self.writes
        if arguments is None:
            arguments = {}  # mempalace reads missing and null arguments as none
        return self.writes_if(arguments) if isinstance(arguments, dict) else True

    def replay_for(self, arguments: object) -> Replay:
        """What to do with a call of these arguments when its engine died."""
        if not self.may_write(arguments):
            return Replay.READ
        if self.never_again_if is not None and isinstance(arguments, dict) and self.never_again_if(arguments):
            return Replay.NEVER
        return self.replay

    def own_limit_s(self, arguments: object) -> float | None:
        """Seconds that a call with these arguments may run, NO_LIMIT, or None where the broker's setting applies."""
        if self.limit == RunLimit.OWN:
            return _timeout_s(arguments)
        return NO_LIMIT if self.limit == RunLimit.NONE else None


def _timeout_s(arguments: object) -> float:
    """`timeout_ms` as the engine reads it, and a grace."""
    raw = arguments.get("timeout_ms", WAIT_DEFAULT_MS) if isinstance(arguments, dict) else WAIT_DEFAULT_MS
    try:
        asked = int(raw)
    except (TypeError, ValueError, OverflowError):
        asked = WAIT_DEFAULT_MS
    return min(max(asked, 0), WAIT_MAX_MS) / 1000 + WAIT_GRACE_S


def _same_entity(one: object, other: object) -> bool:
    return str(one).strip().lower() == str(other).strip().lower()


UNKNOWN_TOOL = ToolRule("", store="", lane=Lane.PALACE, writes=True, replay=Replay.NEVER, known=False)


def _read(name: str, store: str = "chroma", lane: Lane = Lane.PALACE, **more: Any) -> ToolRule:
    return ToolRule("mempalace_" + name, store=store, lane=lane, writes=False, replay=Replay.READ, **more)


def _again(name: str, store: str = "chroma", lane: Lane = Lane.PALACE, **more: Any) -> ToolRule:
    return ToolRule("mempalace_" + name, store=store, lane=lane, writes=True, replay=Replay.IDEMPOTENT, **more)


def _once(name: str, store: str, lane: Lane, **more: Any) -> ToolRule:
    return ToolRule("mempalace_" + name, store=store, lane=lane, writes=True, replay=Replay.NEVER, **more)


_RULES = (
    # chroma, reads
    _read("status"),
    _read("list_wings"),
    _read("list_rooms"),
    _read("get_taxonomy"),
    _read("search", embed="query"),
    _read("check_duplicate", embed="content"),
    _read("get_drawer"),
    _read("get_drawers"),
    _read("list_drawers"),
    _read("diary_read"),
    _read("traverse"),
    _read("find_tunnels"),
    _read("graph_stats"),
    # chroma, writes
    _again("add_drawer", embed="content", check_with="mempalace_search"),
    _again("update_drawer", embed="content", check_with="mempalace_get_drawer"),
    _again("delete_drawer", gone_ok=True, check_with="mempalace_get_drawer"),
    _again("delete_drawers", gone_ok=True, check_with="mempalace_get_drawers"),
    _again("delete_by_source", check_with="mempalace_search", writes_if=lambda args: not args.get("dry_run", True)),
    _again(
        "mine",
        limit=RunLimit.NONE,
        paths=("source",),
        check_with="mempalace_status",
        writes_if=lambda args: not args.get("dry_run", False),
    ),
    _again(
        "sync",
        limit=RunLimit.NONE,
        paths=("project_dir",),
        check_with="mempalace_status",
        writes_if=lambda args: bool(args.get("apply", False)),
    ),
    # drops every cached handle and writes nothing; in the palace lane, so that no call overtakes it
    _again("reconnect", "", check_with="mempalace_status", read_only_ok=True),
    # its id holds the time of day
    _once("diary_write", "chroma", Lane.PALACE, embed="entry", check_with="mempalace_diary_read"),
    # its drawers deduplicate, its diary entry doesn't
    _once("checkpoint", "chroma", Lane.PALACE, check_with="mempalace_diary_read"),
    # JSON files in and beside the palace, rewritten as a whole: same lane as what else writes them
    _read("list_tunnels", "json"),
    _read("list_hallways", "json"),
    _again("create_tunnel", "json", check_with="mempalace_list_tunnels"),  # id from its end points
    _again("delete_tunnel", "json", check_with="mempalace_list_tunnels"),
    _again("delete_hallway", "json", gone_ok=True, check_with="mempalace_list_hallways"),
    # 3.11 counts each traversal
    _once("follow_tunnels", "json", Lane.PALACE, check_with="mempalace_list_tunnels", read_only_ok=True),
    # reads, changes and rewrites config.json
    _again(
        "hook_settings",
        "home",
        check_with="mempalace_hook_settings",
        writes_if=lambda args: args.get("silent_save") is not None or args.get("desktop_toast") is not None,
    ),
    # knowledge graph
    _read("kg_query", "graph", Lane.FREE),
    _read("kg_timeline", "graph", Lane.FREE),
    _read("kg_stats", "graph", Lane.FREE),
    # a fact that is born closed is never found again: each run stores one more
    _again(
        "kg_add",
        "graph",
        Lane.FREE,
        check_with="mempalace_kg_query",
        never_again_if=lambda args: args.get("valid_to") is not None,
    ),
    _again("kg_invalidate", "graph", Lane.FREE, check_with="mempalace_kg_query"),
    # with one entity on both sides it closes the fact that it has just opened
    _again(
        "kg_supersede",
        "graph",
        Lane.FREE,
        check_with="mempalace_kg_query",
        never_again_if=lambda args: _same_entity(args.get("old_object"), args.get("new_object")),
    ),
    # logstream: every call is a new event or artifact
    _read("event_list", "logstream", Lane.FREE),
    _read("artifact_get", "logstream", Lane.FREE),
    _read("event_wait", "logstream", Lane.WAIT, limit=RunLimit.OWN),
    _once("event_append", "logstream", Lane.FREE, check_with="mempalace_event_list"),
    _once("event_ack", "logstream", Lane.FREE, check_with="mempalace_event_list"),
    _once("task_create", "logstream", Lane.FREE, check_with="mempalace_event_list"),
    _once("patch_submit", "logstream", Lane.FREE, check_with="mempalace_event_list"),
    _once("artifact_put", "logstream", Lane.FREE),
    # constants and the home directory
    _read("get_aaak_spec", "", Lane.FREE),
    _read("mesh_peers", "", Lane.FREE),
    _once("memories_filed_away", "home", Lane.FREE),  # reads the note once and removes it
)
TOOLS: dict[str, ToolRule] = {rule.name: rule for rule in _RULES}


def rule_for(tool: object) -> ToolRule:
    """The row of a tool; UNKNOWN_TOOL for any other name, and for a name that is not a string."""
    return TOOLS.get(tool, UNKNOWN_TOOL) if isinstance(tool, str) else UNKNOWN_TOOL


def without_writers(tools: list[Any]) -> list[Any]:
    """The entries of a `tools/list` that a read-only session sees."""
    return [tool for tool in tools if isinstance(tool, dict) and rule_for(tool.get("name")).read_only_ok]
