"""No file imports itself, by whatever detour; imports for types alone count, unlike in import-linter's contracts."""

from __future__ import annotations

import grimp
import pytest


@pytest.mark.parametrize("package", ["mempalace_broker", "pi_devbox"])
def test_no_circle_of_files(package: str) -> None:
    graph = grimp.build_graph(package, cache_dir=None)  # a stale cache has hidden a circle
    circles = {
        tuple(sorted({imported, *chain}))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if (chain := graph.find_shortest_chain(imported, module))
    }
    assert not circles
