"""The fix for upstream bug #1710 is applied only to the buggy check; without it, deletes are refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups.apply import apply_tuneups
from mempalace_broker.engine.tuneups.delete_fix import DELETE_FIX, deletes_destroy_index
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from mempalace_broker.errors import NOT_EXECUTED
from tests.fakes.mempalace import FakeMempalace


def value(persisted: Any, name: str) -> Any:
    return persisted.get(name) if isinstance(persisted, dict) else getattr(persisted, name, None)


def judge(persisted: Any, id_to_label: Any, seg_dir: str, *, equal: bool = True) -> bool:
    total, labels = value(persisted, "total_elements_added"), value(persisted, "label_to_id")
    if not isinstance(total, int) or not os.path.isfile(os.path.join(seg_dir, "data_level0.bin")):
        return False
    count = len(id_to_label)
    return len(labels) == count and (total == count if equal else total >= count)


def buggy(persisted: Any, id_to_label: Any, seg_dir: str) -> bool:
    return judge(persisted, id_to_label, seg_dir)


def fixed(persisted: Any, id_to_label: Any, seg_dir: str) -> bool:
    return judge(persisted, id_to_label, seg_dir, equal=False)


def chroma_with(check: Any) -> SimpleNamespace:
    return SimpleNamespace(_missing_dimensionality_appears_recoverable=check, _persisted_metadata_value=value)


def test_the_bug_is_found_by_what_the_check_does(tmp_path: Path) -> None:
    assert deletes_destroy_index(FakeMempalace(tmp_path, backends__chroma=chroma_with(buggy)))  # type: ignore[arg-type]
    assert not deletes_destroy_index(FakeMempalace(tmp_path, backends__chroma=chroma_with(fixed)))  # type: ignore[arg-type]
    assert not deletes_destroy_index(FakeMempalace(tmp_path))  # type: ignore[arg-type]


def test_the_fix_accepts_deletes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "data_level0.bin").write_bytes(b"x")
    chroma = chroma_with(buggy)
    DELETE_FIX.apply(FakeMempalace(tmp_path, backends__chroma=chroma))  # type: ignore[arg-type]
    check = chroma._missing_dimensionality_appears_recoverable
    two = {1: "a", 2: "b"}
    assert check({"total_elements_added": 5, "label_to_id": two}, {"a": 1, "b": 2}, str(tmp_path))
    assert check(SimpleNamespace(total_elements_added=5, label_to_id=two), {"a": 1, "b": 2}, str(tmp_path))
    assert not check({"total_elements_added": 1, "label_to_id": two}, {"a": 1, "b": 2}, str(tmp_path))
    assert not check({"total_elements_added": 5, "label_to_id": {1: "a"}}, {"a": 1, "b": 2}, str(tmp_path))
    assert not check({"total_elements_added": True, "label_to_id": {}}, {}, str(tmp_path))
    assert not check({"total_elements_added": 5, "label_to_id": two}, {"a": 1, "b": 2}, "/nowhere")


def test_the_fix_is_not_applied_where_it_is_not_needed(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="upstream fix"):
        DELETE_FIX.apply(FakeMempalace(tmp_path, backends__chroma=chroma_with(fixed)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tool", "arguments", "refused"),
    [
        ("delete_drawer", {}, True),
        ("delete_by_source", {}, True),
        ("sync", {"apply": True}, True),
        ("sync", {}, False),
        ("mine", {}, True),
        ("add_drawer", {}, False),
        ("search", {}, False),
    ],
)
def test_without_the_fix_deletes_are_refused(
    tmp_path: Path, tool: str, arguments: dict[str, Any], refused: bool
) -> None:
    mempalace = FakeMempalace(tmp_path, backends__chroma=chroma_with(buggy))
    report = apply_tuneups(mempalace, wanted=False)  # type: ignore[arg-type]
    assert not [one for one in report if one["applied"]]
    why = mempalace.refusals[0](f"mempalace_{tool}", arguments)
    assert (why is not None) == refused
    assert not refused or ("#1710" in why and "MEMPALACE_BROKER_TUNE" in why)
    assert NOT_EXECUTED == -32010


def test_with_the_fix_nothing_is_refused(tmp_path: Path) -> None:
    mempalace = FakeMempalace(tmp_path, backends__chroma=chroma_with(buggy))
    report = apply_tuneups(mempalace, wanted=True)  # type: ignore[arg-type]
    assert [one["name"] for one in report if one["applied"]] == ["delete-fix"]
    assert all(one["why"] for one in report)
    assert mempalace.refusals == []
