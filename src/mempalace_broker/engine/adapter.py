"""The only module that imports mempalace: what the worker needs from it, for 3.4.0 up to the newest.

It builds on these facts, which tests check at both ends of the range:

* Importing `mempalace.mcp_server` points fd 1 to stderr; 3.4.0 parses sys.argv at import, 3.11 expects a call of
  `_apply_server_flags` afterwards. Only `--palace` puts the knowledge graph into the palace.
* `handle_request` keeps no state between clients.
* 3.11 has a write lock of its own, held for the life of the process; 3.4.0 locks per call and per thread,
  re-entrantly. Both are called the upstream write lock here.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any, Callable, NamedTuple

from ..errors import EXIT_HELD, EXIT_NO_ENGINE, INTERNAL_ERROR, NOT_EXECUTED
from ..protocol.engine_frames import (
    BAD_PALACE,
    IMPORT_FAILED,
    NO_MEMPALACE,
    OLD_VERSION,
    WRITE_LOCK_FAILED,
    WRITE_LOCK_HELD,
)
from ..system import kernel
from . import jobs, payload
from .import_hint import import_failure, import_hint, last_line
from .model_loading import importing

OLDEST = (3, 4, 0)
_WARM_UP_TEXT = "__mempalace_broker_warm_up__"


class EngineFailure(Exception):
    """The engine can't serve this palace; the broker gets it as a `fail` frame, then this process ends."""

    def __init__(self, reason: str, message: str, hint: str = "", exit_code: int = EXIT_NO_ENGINE) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


class Options(NamedTuple):
    """The broker's options for its engine."""

    palace: str  # by the name that the user gave it
    by: str = "default"  # how the palace was chosen: flag, env, config, default
    backend: str | None = None  # as in the client's configuration; None: mempalace's own choice
    journal: str | None = None  # path of the journal of writes
    tune: bool = True  # apply tune-ups
    real: str = ""  # the real path that the palace must have, because the broker's locks are there; "" for any
    power_safe: bool = False  # answer a write only once the drive has it


def _version_tuple(text: str) -> tuple[int, ...]:
    """Leading numbers of a version: "3.11.0rc1" -> (3, 11, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _prepare_process(options: Options) -> None:
    """Make this process look to mempalace like the user's own `mempalace-mcp`."""
    argv = ["mempalace-mcp"]
    if options.by == "flag":
        argv += ["--palace", options.palace]
    else:
        os.environ["MEMPALACE_PALACE_PATH"] = options.palace
    if options.backend:
        argv += ["--backend", options.backend]
    sys.argv = argv
    os.environ["MEMPALACE_HUB_FORWARD"] = "0"  # the broker takes its place
    os.environ["MEMPALACE_MCP_IDLE_HOURS"] = "0"  # the broker decides when the engine ends
    os.environ.pop("MEMPALACE_MCP_ALLOW_PEER_WRITER", None)  # it would skip the upstream write lock


def _refuse_elsewhere(options: Options) -> Callable[[str, dict[str, Any]], str | None]:
    """A refusal of calls once the palace's name, which may be a link, leads to another palace: its lock isn't ours.

    Raises:
        EngineFailure: it does so already.
    """
    if options.real and kernel.real_path(options.palace) != options.real:
        raise EngineFailure(BAD_PALACE, f"{options.palace} no longer leads to {options.real}.", "send the call again")
    found = _device_and_inode(options.palace)

    def refusal(tool: str, _arguments: dict[str, Any]) -> str | None:
        nonlocal found
        now = _device_and_inode(options.palace)
        if now == found or not found:
            found = now  # the first write makes the folder
            return None
        return f"{tool} was not executed: {options.palace} leads to another folder now. Hint: send it again."

    return refusal


def _device_and_inode(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _import_server() -> Any:
    try:
        return importlib.import_module("mempalace.mcp_server")
    except ImportError as exc:
        message = f"{sys.executable} can't import mempalace ({last_line(exc)})."
        raise EngineFailure(NO_MEMPALACE, message, import_hint(str(exc), sys.prefix)) from exc
    except (Exception, SystemExit) as exc:
        raise EngineFailure(IMPORT_FAILED, *import_failure(exc)) from exc


class Mempalace:
    """The installed mempalace, imported and bound to one palace.

    Raises:
        EngineFailure: it can't be imported, is too old, or the palace can't be one.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._write_lock: Any = None
        _prepare_process(options)
        if os.path.exists(options.palace) and not os.path.isdir(options.palace):
            raise EngineFailure(BAD_PALACE, f"{options.palace} is not a directory.", "choose another --palace")
        with importing(options.palace, lean=options.tune) as self.model:
            self.server: Any = _import_server()
        self.version = str(getattr(self.server, "__version__", "0"))
        if _version_tuple(self.version) < OLDEST:
            raise EngineFailure(
                OLD_VERSION,
                f"mempalace {self.version} in {sys.executable} is older than 3.4.0.",
                "upgrade it: `uv tool upgrade mempalace` or `pip install -U mempalace`",
            )
        self._apply_flags()
        self.backend = self._backend()
        os.environ.pop("PYTHONPATH", None)  # as mempalace's own main() does, for what it starts
        # why a call must not run, or None
        self.refusals: list[Callable[[str, dict[str, Any]], str | None]] = [_refuse_elsewhere(options)]
        self.after_call: list[Callable[[], None]] = []
        self.before_close: list[Callable[[], None]] = []
        self.after_close: list[Callable[[], None]] = []
        self.before_open: list[Callable[[], list[dict[str, str]]]] = []  # each returns warnings, as below
        self.warnings: list[dict[str, str]] = []  # {"what", "hint"} of what works less well
        self.prefetch_embedding: Callable[[str], None] | None = None
        self.keep_embeddings: Callable[[int], None] | None = None  # of so many texts, or of more
        self.calls_at_boundary = 8  # how many may run between two files of a mine
        self.between_texts: Callable[[], bool] | None = None  # lets others run in a file of the mine; None without one

    def _apply_flags(self) -> None:
        apply = getattr(self.server, "_apply_server_flags", None)
        if apply is not None:
            palace = self.options.palace if self.options.by == "flag" else None
            apply(palace=palace, backend=self.options.backend)

    def module(self, name: str) -> Any:
        """The module mempalace.`name`, or None where this version lacks it."""
        try:
            return importlib.import_module(f"mempalace.{name}")
        except ImportError:
            return None

    # -- what the broker learns --------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """The payload of the hello frame.

        `initialize` has `result`, the answer to the newest protocol version; `versions`, all supported ones, each
        echoed as `protocolVersion`; `unknown` and `missing`, the version in the answer to any other, and to none.
        """
        versions = [str(v) for v in getattr(self.server, "SUPPORTED_PROTOCOL_VERSIONS", ())]
        asked = {"protocolVersion": versions[0]} if versions else {}
        return {
            "version": self.version,
            "python": sys.version.split()[0],
            "pid": os.getpid(),
            "initialize": {
                "result": self._ask("initialize", asked),
                "versions": versions,
                "unknown": self._ask("initialize", {"protocolVersion": "-"}).get("protocolVersion"),
                "missing": self._ask("initialize", {}).get("protocolVersion"),
            },
            "tools": self._ask("tools/list", {}).get("tools", []),
            "palace": self.palace_path(),
            "graph": self.graph_path(),
            "backend": self.backend,
            "mine_yields": hasattr(self.module("palace"), "mine_yield_hook"),
        }

    def _backend(self) -> str | None:
        """The storage backend that mempalace chose; None where this version can't tell, or the palace has another."""
        resolve = getattr(self.module("palace"), "resolve_backend_name", None)
        try:
            return str(resolve(self.palace_path())) if resolve is not None else None
        except Exception as exc:  # noqa: BLE001 - whatever it raises, each call will, and then it is said
            print(f"the backend can't be told: {exc}", file=sys.stderr)
            return None

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "id": 0, "method": method, "params": params}
        result = self.server.handle_request(request).get("result")
        return result if isinstance(result, dict) else {}

    def palace_path(self) -> str:
        """The palace directory as mempalace resolved it."""
        return str(self.server._config.palace_path)

    def config_path(self) -> str:
        """The path of its config.json, "" where this version can't tell."""
        return str(getattr(self.server._config, "_config_file", ""))

    def own_folders(self) -> list[str]:
        """The folders that mempalace itself works with, whoever calls: palace, graph, settings, models."""
        home = os.path.expanduser("~")
        graph = self.graph_path()
        models = (".cache/chroma", ".cache/huggingface", ".cache/torch", ".cache/mempalace")
        named = [os.path.join(home, name) for name in (".mempalace", ".config/mempalace", *models)]
        return [self.palace_path(), *([os.path.dirname(graph)] if graph else []), *named]

    def graph_path(self) -> str | None:
        """The database of its knowledge graph; None where this version can't tell."""
        resolve = getattr(self.server, "_resolve_kg_path", None)
        return str(resolve()) if resolve is not None else None

    # -- the upstream write lock -------------------------------------------------------------------

    def take_write_lock(self) -> None:
        """Take the upstream write lock for the life of this process, so that every other writer is refused.

        Call it on the thread that will run the palace lane: 3.4.0 counts its lock per thread.

        Raises:
            EngineFailure: another process holds it, or it can't be taken.
        """
        acquire = getattr(self.server, "_acquire_mcp_writer_lock", None)
        if acquire is None:
            self._take_per_call_lock()
            return
        acquired, why = acquire()
        if not acquired:
            raise _not_locked(str(why), held=bool(getattr(self.server, "_MCP_WRITER_READ_ONLY", True)))

    def _take_per_call_lock(self) -> None:
        palace = self.module("palace")
        lock = getattr(palace, "mine_palace_lock", None)
        if lock is None:
            raise EngineFailure(OLD_VERSION, f"mempalace {self.version} has no palace lock.", "upgrade mempalace")
        manager = lock(self.palace_path())
        try:
            manager.__enter__()
        except palace.MineAlreadyRunning as exc:
            raise _not_locked(str(exc), held=True) from exc
        except OSError as exc:
            raise _not_locked(f"mempalace's palace lock can't be taken: {exc}", held=False) from exc
        self._write_lock = manager  # kept: collecting the generator would release the lock

    def give_up_write_lock(self) -> None:
        """Release the upstream write lock. Call it on the thread that took it."""
        manager, self._write_lock = self._write_lock, None
        if manager is None:
            manager = self.server._MCP_WRITER_LOCK_CM
            self.server._MCP_WRITER_LOCK_CM = None
        manager.__exit__(None, None, None)

    # -- calls -------------------------------------------------------------------------------------

    def handle(self, request: Any) -> Any:
        """Answer one JSON-RPC request as mempalace would; no request makes it raise."""
        request_id = payload.request_id(request)
        tool, arguments = payload.tool_call(request)
        if tool is not None:
            for refusal in self.refusals:
                why = refusal(tool, arguments)
                if why is not None:
                    return payload.error_response(request_id, NOT_EXECUTED, why)
        try:
            return jobs.answer(request, self.server, self.module, self.palace_path())
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever it raises, the caller gets an answer
            print(f"mempalace raised {type(exc).__name__} on {tool or 'a request'}: {exc}", file=sys.stderr)
            if isinstance(request, dict) and "id" not in request:
                return None
            return payload.error_response(request_id, INTERNAL_ERROR, "Internal error")

    def finish_call(self) -> None:
        """Run the steps in `after_call`, after each call of the palace lane; one that fails is dropped."""
        for step in list(self.after_call):
            try:
                step()
            except Exception as exc:  # noqa: BLE001, PERF203 - a tune-up must never end the engine
                print(f"a tune-up was dropped: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
                self.after_call.remove(step)

    def mine_yield_hook(self, hook: Callable[[], bool]) -> Any:
        """A context manager that calls `hook` between two files of a mine; None where this version can't."""
        manager = getattr(self.module("palace"), "mine_yield_hook", None)
        return manager(hook) if manager is not None else None

    # -- warm-up -----------------------------------------------------------------------------------

    def palace_exists(self) -> bool:
        """Whether there is a palace to open: opening a missing one could create it."""
        exists = getattr(self.server, "_backend_db_exists", None)
        return bool(exists()) if exists is not None else False

    def is_chroma(self) -> bool:
        """Whether the palace is stored in Chroma (and not in a database server)."""
        check = getattr(self.server, "_is_chroma_backend", None)
        return bool(check()) if check is not None else True

    def open_palace(self) -> Any:
        """Open the collection on this thread; None where there is none yet, or none of Chroma's.

        Raises:
            Exception: whatever opening raised; the palace is degraded then, not unusable.
        """
        self.warnings = [warning for step in self.before_open for warning in step()]
        if not (self.is_chroma() and self.palace_exists()):
            return None
        collection = self.server._get_collection(create=False)
        if collection is None:
            raise RuntimeError(payload.opening_error(getattr(self.server, "_collection_open_error", None)))
        return collection

    def warm_up(self, collection: Any) -> int | None:
        """Search once on this thread; return the number of drawers. `collection`: what `open_palace` returned.

        Raises:
            Exception: as `open_palace`.
        """
        if collection is None:
            return None
        drawers = int(collection.count())
        arguments = {"query": _WARM_UP_TEXT, "limit": 1}
        call = {"name": "mempalace_search", "arguments": arguments}
        self.server.handle_request({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": call})
        self.finish_call()
        return drawers


def _not_locked(why: str, *, held: bool) -> EngineFailure:
    hint = "stop the process named above, then `mempalace-broker restart`" if held else ""
    return EngineFailure(WRITE_LOCK_HELD if held else WRITE_LOCK_FAILED, why, hint, EXIT_HELD)
