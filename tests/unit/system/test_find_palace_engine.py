"""The same palace and graph as mempalace finds: live for the oldest and the newest, recorded for every version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.system.find_palace import resolve_palace
from mempalace_broker.system.program_folders import numbers_of
from tests.harness import engine_python
from tests.palace_choices import CASES, VERSIONS, Case, ask, recorded

SERVER = """
    sys.argv = ["mempalace-mcp"] + (["--palace", flag] if flag else [])
    import mempalace.mcp_server as server
    if flag and hasattr(server, "_apply_server_flags"):
        server._apply_server_flags(palace=flag)
    found = [server._config.palace_path, server._resolve_kg_path()]
"""


def ours(case: Case, home: Path, version: str) -> tuple[str, str]:
    asked = case.build(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        found = resolve_palace(asked["flag"], asked["env"], str(home), version=lambda _: numbers_of(version))
    return found.path.replace(str(home), "{h}"), found.graph.replace(str(home), "{h}")


@pytest.mark.parametrize("version", VERSIONS)
def test_as_every_version(version: str, tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    theirs = {name: found[version] for name, found in recorded().items() if found[version] is not None}
    assert {name: ours(CASES[name], root / name, version)[0] for name in theirs} == theirs


def test_every_case_is_recorded() -> None:
    assert list(recorded()) == list(CASES)


def test_as_the_real_one(engine: str, tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    version = VERSIONS[0 if engine == VERSIONS[0] else -1]
    theirs = ask([str(engine_python(engine))], CASES, root / "theirs", preload="import chromadb", code=SERVER)
    said = {name: found[version] for name, found in recorded().items()}
    assert {name: answer and answer[0] for name, answer in theirs.items()} == said
    for name, answer in theirs.items():
        if answer is not None:
            assert list(ours(CASES[name], root / "ours" / name, version)) == answer, name
