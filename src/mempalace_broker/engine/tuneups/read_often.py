"""Tune-ups for things that every version reads repeatedly: config.json, the list of collections, their schemas."""

from __future__ import annotations

import copy
import importlib
import os
import pathlib
from typing import TYPE_CHECKING, Any

from .file_cache import FileCache, database_files, stamps_of
from .tuneup import DoesNotFit, TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace

# -- config.json ---------------------------------------------------------------------------------------

_PLACES = ("HOME", "MEMPALACE_CONFIG_DIR", "XDG_CONFIG_HOME")  # variables that decide where it is
_PLAIN = (str, bool, int, dict, pathlib.PurePath, type(None))


def _apply_config_cache(mempalace: Mempalace) -> None:
    config: Any = getattr(mempalace.module("config"), "MempalaceConfig", None)
    stock: Any = getattr(config, "__init__", None)
    require(parameters(stock)[:2] == ["self", "config_dir"], "MempalaceConfig is not what it was")
    cache = FileCache()

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        """Take what the file said as long as it is unchanged."""
        if args or kwargs:
            stock(self, *args, **kwargs)
            return
        key = "config", "\0".join(os.environ.get(name, "") for name in _PLACES)
        known = cache.get(key)
        if known is None:
            stock(self)
            known = vars(self)
            if _is_read(known):
                cache.put(key, _copied(known), _config_files(str(known["_config_file"])), [])
        else:
            vars(self).update(_copied(known))

    replace(init, "__init__", config)


def _is_read(state: dict[str, Any]) -> bool:
    """Return whether the file was read, or does not exist."""
    known = bool(state.get("_file_config")) or not os.path.lexists(state["_config_file"])
    return known and all(isinstance(value, _PLAIN) for value in state.values())


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) if isinstance(value, dict) else value for name, value in state.items()}


def _config_files(chosen: str) -> list[str]:
    """The files whose appearance, change or end leads to another configuration."""
    usual = os.path.join(os.path.expanduser("~"), ".mempalace")
    files = [chosen, *(os.path.join(usual, name) for name in ("config.json", "people_map.json"))]
    if chosen not in files[1:]:
        files.append(os.path.join(usual, "palace", "chroma.sqlite3"))
    return files


# -- collections ---------------------------------------------------------------------------------------

_COLLECTIONS = "_mempalace_broker_collections"  # attribute of an open client


def _apply_collection_cache(mempalace: Mempalace) -> None:
    try:
        api: Any = importlib.import_module("chromadb.api.rust").RustBindingsAPI
        missing: Any = importlib.import_module("chromadb.errors").NotFoundError
    except (ImportError, AttributeError) as exc:
        raise DoesNotFit(f"this chromadb keeps its collections differently: {exc}") from exc
    stock: Any = getattr(api, "get_collection", None)
    require(parameters(stock) == ["self", "name", "tenant", "database"], "chromadb's get_collection is not what it was")
    tenant_, database_ = stock.__defaults__ or ("", "")
    palace = mempalace.palace_path()
    files = database_files(palace)

    def get_collection(self: Any, name: str, tenant: str = tenant_, database: str = database_) -> Any:
        """Answer from memory while the database is unchanged; each open client has its own answers."""
        if not _has_open(self, palace):
            return stock(self, name, tenant, database)
        cache = vars(self).setdefault(_COLLECTIONS, FileCache())
        key = name, f"{tenant}\0{database}"
        known = cache.get(key)
        if known is None:
            before = stamps_of(files)
            try:
                known = stock(self, name, tenant, database)
            except missing as exc:  # as that of the closets is, where nothing was mined
                known = exc
            if before[0] is not None:
                cache.put(key, known, files, before)
        if isinstance(known, missing):
            raise known.with_traceback(None)
        return copy.copy(known)

    replace(get_collection, "get_collection", api)


def _has_open(client: Any, palace: str) -> bool:
    settings = getattr(getattr(client, "_system", None), "settings", None)
    return str(getattr(settings, "persist_directory", "")) == palace


# -- schemas -------------------------------------------------------------------------------------------


def _apply_schema_cache(_mempalace: Mempalace) -> None:
    try:
        common: Any = importlib.import_module("chromadb.api.models.CollectionCommon").CollectionCommon
    except (ImportError, AttributeError) as exc:
        raise DoesNotFit(f"this chromadb has no schemas: {exc}") from exc
    stock: Any = getattr(common, "_get_sparse_embedding_targets", None)
    require(parameters(stock) == ["self"], "chromadb looks for sparse embeddings in another way")
    without: list[Any] = []  # the last schema that has none

    def targets(self: Any) -> Any:
        """Answer from memory if the schema is the last one, which had none."""
        schema = getattr(self._model, "serialized_schema", None)
        if schema is not None and schema in without:
            return {}
        found = stock(self)
        if found == {} and schema is not None:
            without[:] = [copy.deepcopy(schema)]
        return found

    replace(targets, "_get_sparse_embedding_targets", common)


CONFIG_CACHE = TuneUp(
    "config-cache",
    "config.json is read again only after it changed",
    "upstream reads it a dozen times in each call",
    _apply_config_cache,
    any_backend=True,
)
COLLECTION_CACHE = TuneUp(
    "collection-cache",
    "Chroma is asked for a collection again only after the database changed",
    "upstream opens two of them in each search",
    _apply_collection_cache,
)
SCHEMA_CACHE = TuneUp(
    "schema-cache",
    "a collection's schema is searched for sparse embeddings only once",
    "Chroma builds its objects from JSON on every write",
    _apply_schema_cache,
)
