"""Which texts a call will have embedded, so that they can be embedded before its turn."""

from __future__ import annotations

from typing import Any

_MAX_CHUNKS = 64  # of one call; the rest is embedded in the call's own turn


def texts_to_embed(server: Any, tool: str | None, arguments: dict[str, Any]) -> list[str]:
    """The texts, exactly as the tool will pass them to the embedding function; empty where unknown.

    A wrong guess only wastes the prefetch. Raises whatever mempalace's own text cleaning raises.
    """
    if tool == "mempalace_search":
        query = arguments.get("query")
        return [server.sanitize_query(query)["clean_query"]] if isinstance(query, str) else []
    if tool == "mempalace_check_duplicate":
        content = arguments.get("content")
        return [server.strip_lone_surrogates(content)] if isinstance(content, str) else []
    if tool in ("mempalace_add_drawer", "mempalace_update_drawer"):
        return _chunks(server, arguments.get("content"))
    if tool == "mempalace_diary_write":
        entry = arguments.get("entry")
        return _chunks(server, entry if entry is not None else arguments.get("content"))
    return []


def _chunks(server: Any, content: Any) -> list[str]:
    if not isinstance(content, str):
        return []
    content, size = server.sanitize_content(content), int(server._config.chunk_size)
    return [content[i : i + size] for i in range(0, min(len(content), size * _MAX_CHUNKS), size)]
