"""What each tool of mempalace does to the palace, and what follows for us.

The engine's own `readOnlyHint` is never wrong but marks 14 of 47 tools in 3.11.0 and none in 3.4.0, so the
table is ours. Every row was found by reading the sources of 3.4.0 and 3.11.0 and by executing the tool
twice. A tool that is not in it is treated as the most dangerous one: an exclusive write that is never sent
again.

Lanes follow the store, never the read/write side: a session that pipelines `create_tunnel` and `list_tunnels`
must see them run in that order, and calls of two lanes may overtake each other.

`replay` assumes that the broker repeats a call on a fresh engine *before anything else runs there*.
Knowledge graph writes need that: `kg_add` returns the same fact only while the fact is open, so an
overlapping `kg_invalidate` would turn its repetition into a second fact. With two graph writes under way at
once, neither is safe to repeat: the free lane has to run one *write* at a time.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Arguments = Mapping[str, Any]

# lanes
PALACE = "palace"  # whatever touches Chroma or the JSON files beside it: one at a time
FREE = "free"  # knowledge graph, logstream, constants: stores with locks of their own
WAIT = "wait"  # blocks by design and holds nothing meanwhile

# what to do with a call that was under way when its engine died
READ = "read"  # changes nothing: run it again
IDEMPOTENT = "idempotent"  # a second run changes nothing more: run it again
NEVER = "never"  # a second run would be a second write: the outcome is unknown

# how long a call may run
DEFAULT = "default"  # the broker's run limit
NONE = "none"  # minutes to hours by nature
OWN = "own"  # as long as its own `timeout_ms` says, see own_limit_s


class ToolRule:
    """One row of the table; immutable by convention.

    Attributes:
        name: tool name as in tools/list; empty for a tool that we don't know.
        known: False for the rule of unknown tools.
        writes: whether it may change a store, with the arguments that make it do so; see `write_if`.
        store: "chroma", "json", "graph", "logstream", "home" or "" (no store).
        lane: PALACE, FREE or WAIT.
        replay: READ, IDEMPOTENT or NEVER; see `replay_if` for arguments that change it.
        limit: DEFAULT, NONE or OWN.
        embed: name of the argument whose text is embedded as one piece when it is short, or None.
        paths: names of the arguments that name files on the caller's machine. Labels that are only compared
            with stored labels (`source_file`) are none.
        graph: whether it reads or writes the knowledge graph.
        gone_ok: whether a replayed call that finds nothing did its work the first time. How they say so:
            delete_drawer {"success": false, "error": "Drawer not found: <id>"}; delete_drawers an "error" of that
            text in the item's slot, counted in "errors"; delete_hallway {"deleted": false}.
        look: the tool with which an agent finds out whether a write of unknown outcome is stored, or "".
    """

    __slots__ = (
        "embed",
        "gone_ok",
        "graph",
        "known",
        "lane",
        "limit",
        "look",
        "name",
        "paths",
        "replay",
        "store",
        "writes",
    )

    def __init__(
        self,
        name: str,
        *,
        store: str,
        lane: str,
        writes: bool,
        replay: str,
        limit: str = DEFAULT,
        embed: str | None = None,
        paths: tuple[str, ...] = (),
        gone_ok: bool = False,
        look: str = "",
        known: bool = True,
    ) -> None:
        self.name = name
        self.store = store
        self.lane = lane
        self.writes = writes
        self.replay = replay
        self.limit = limit
        self.embed = embed
        self.paths = paths
        self.graph = store == "graph"
        self.gone_ok = gone_ok
        self.look = look
        self.known = known

    def __repr__(self) -> str:
        kind = "writes" if self.writes else "reads"
        return f"<ToolRule {self.name or 'unknown'} {kind} {self.store or 'nothing'} {self.lane} {self.replay}>"


UNKNOWN_TOOL = ToolRule("", store="", lane=PALACE, writes=True, replay=NEVER, known=False)


def _read(name: str, store: str = "chroma", lane: str = PALACE, **more: Any) -> ToolRule:
    return ToolRule("mempalace_" + name, store=store, lane=lane, writes=False, replay=READ, **more)


def _again(name: str, store: str = "chroma", lane: str = PALACE, **more: Any) -> ToolRule:
    return ToolRule("mempalace_" + name, store=store, lane=lane, writes=True, replay=IDEMPOTENT, **more)


def _once(name: str, store: str, lane: str, **more: Any) -> ToolRule:
    return ToolRule("mempalace_" + name, store=store, lane=lane, writes=True, replay=NEVER, **more)


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
    _again("add_drawer", embed="content", look="mempalace_search"),
    _again("update_drawer", embed="content", look="mempalace_get_drawer"),
    _again("delete_drawer", gone_ok=True, look="mempalace_get_drawer"),
    _again("delete_drawers", gone_ok=True, look="mempalace_get_drawers"),
    _again("delete_by_source", look="mempalace_search"),
    _again("mine", limit=NONE, paths=("source",), look="mempalace_status"),
    _again("sync", limit=NONE, paths=("project_dir",), look="mempalace_status"),
    # drops every cached handle and writes nothing; a maintenance call, so that nothing overtakes it
    _again("reconnect", "", look="mempalace_status"),
    # its id holds the time of day
    _once("diary_write", "chroma", PALACE, embed="entry", look="mempalace_diary_read"),
    # its drawers deduplicate, its diary entry doesn't
    _once("checkpoint", "chroma", PALACE, look="mempalace_diary_read"),
    # JSON files in and beside the palace, rewritten as a whole: same lane as what else writes them
    _read("list_tunnels", "json"),
    _read("list_hallways", "json"),
    _again("create_tunnel", "json", look="mempalace_list_tunnels"),  # id from its end points
    _again("delete_tunnel", "json", look="mempalace_list_tunnels"),
    _again("delete_hallway", "json", gone_ok=True, look="mempalace_list_hallways"),
    _once("follow_tunnels", "json", PALACE, look="mempalace_list_tunnels"),  # 3.11 counts each traversal
    # reads, changes and rewrites config.json
    _again("hook_settings", "home", look="mempalace_hook_settings"),
    # knowledge graph
    _read("kg_query", "graph", FREE),
    _read("kg_timeline", "graph", FREE),
    _read("kg_stats", "graph", FREE),
    _again("kg_add", "graph", FREE, look="mempalace_kg_query"),
    _again("kg_invalidate", "graph", FREE, look="mempalace_kg_query"),
    _again("kg_supersede", "graph", FREE, look="mempalace_kg_query"),
    # logstream: every call is a new event or artifact
    _read("event_list", "logstream", FREE),
    _read("artifact_get", "logstream", FREE),
    _read("event_wait", "logstream", WAIT, limit=OWN),
    _once("event_append", "logstream", FREE, look="mempalace_event_list"),
    _once("event_ack", "logstream", FREE, look="mempalace_event_list"),
    _once("task_create", "logstream", FREE, look="mempalace_event_list"),
    _once("patch_submit", "logstream", FREE, look="mempalace_event_list"),
    _once("artifact_put", "logstream", FREE),
    # constants and the home directory
    _read("get_aaak_spec", "", FREE),
    _read("mesh_peers", "", FREE),
    _once("memories_filed_away", "home", FREE),  # reads the note once and removes it
)
TOOLS: dict[str, ToolRule] = {rule.name: rule for rule in _RULES}


def rule_for(tool: object) -> ToolRule:
    """The row of a tool; UNKNOWN_TOOL for any other name, and for a name that is no string."""
    return TOOLS.get(tool, UNKNOWN_TOOL) if isinstance(tool, str) else UNKNOWN_TOOL


# Tools that write only with certain arguments. mempalace tests truth, not type: {"apply": "false"} applies.
_WRITES_WITH: dict[str, Callable[[Arguments], bool]] = {
    "mempalace_sync": lambda args: bool(args.get("apply", False)),
    "mempalace_mine": lambda args: not args.get("dry_run", False),
    "mempalace_delete_by_source": lambda args: not args.get("dry_run", True),
    "mempalace_hook_settings": lambda args: (
        args.get("silent_save") is not None or args.get("desktop_toast") is not None
    ),
}


def write_if(tool: object, arguments: object) -> bool:
    """Whether this very call may write: `sync` without `apply` or `hook_settings` without arguments don't."""
    rule = rule_for(tool)
    test = _WRITES_WITH.get(rule.name)
    if not rule.writes or test is None:
        return rule.writes
    if arguments is None:
        arguments = {}  # mempalace reads missing and null arguments as none
    return test(arguments) if isinstance(arguments, dict) else True


def replay_if(tool: object, arguments: object) -> str:
    """READ, IDEMPOTENT or NEVER for this very call."""
    rule = rule_for(tool)
    if not write_if(tool, arguments):
        return READ
    if rule.replay != IDEMPOTENT or not isinstance(arguments, dict):
        return rule.replay
    if rule.name == "mempalace_kg_add" and arguments.get("valid_to") is not None:
        return NEVER  # a fact that is born closed is never found again: each run stores one more
    if rule.name == "mempalace_kg_supersede" and _same_entity(arguments.get("old_object"), arguments.get("new_object")):
        return NEVER  # closes the fact that it has just opened
    return IDEMPOTENT


def _same_entity(one: object, other: object) -> bool:
    return str(one).strip().lower() == str(other).strip().lower()


WAIT_DEFAULT_MS = 60_000  # mempalace: tool_event_wait
WAIT_MAX_MS = 300_000  # mempalace: logstream.MAX_WAIT_TIMEOUT_MS
WAIT_GRACE_S = 5.0


def own_limit_s(arguments: object) -> float:
    """Seconds that a call of an OWN tool may take: its `timeout_ms` as the engine reads it, and a grace."""
    raw = arguments.get("timeout_ms", WAIT_DEFAULT_MS) if isinstance(arguments, dict) else WAIT_DEFAULT_MS
    try:
        asked = int(raw)
    except (TypeError, ValueError, OverflowError):
        asked = WAIT_DEFAULT_MS
    return min(max(asked, 0), WAIT_MAX_MS) / 1000 + WAIT_GRACE_S


def audit(tools: Iterable[object]) -> list[str]:
    """Compare an engine's tools/list with the table; one sentence for each difference that matters."""
    findings: list[str] = []
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            findings.append(f"tools/list holds an entry without a name: {str(tool)[:80]}")
            continue
        findings.extend(_audit_one(tool))
    return findings


def _audit_one(tool: Mapping[str, Any]) -> list[str]:
    name = tool["name"]
    rule = rule_for(name)
    if not rule.known:
        return [f"{name} is not in the tool table: treated as an exclusive write that is never sent again"]
    found = []
    hints = tool.get("annotations")
    if rule.writes and isinstance(hints, dict) and hints.get("readOnlyHint") is True:
        found.append(f"{name} is marked read-only by the engine but is a write in the tool table")
    if not rule.writes and isinstance(hints, dict) and hints.get("destructiveHint") is True:
        found.append(f"{name} is marked destructive by the engine but is a read in the tool table")
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    named = (*rule.paths, rule.embed) if rule.embed else rule.paths
    missing = [arg for arg in named if not isinstance(properties, dict) or arg not in properties]
    if missing:
        found.append(f"{name} has no argument {', '.join(missing)} any more")
    return found
