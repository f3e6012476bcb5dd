"""Which kernel owns the palace, by the filesystem that it lies on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.locality import locality as module
from mempalace_broker.locality.locality import OTHER_KERNEL, SAME_KERNEL, Locality, locate
from mempalace_broker.system import kernel
from mempalace_broker.system.paths import StateFiles


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "overlay", "tmpfs", "zfs", "apfs"])
def test_local_filesystems_are_ours(kind: str) -> None:
    assert Locality.of("/p", kind).kind == SAME_KERNEL


@pytest.mark.parametrize("kind", ["virtiofs", "9p", "nfs4", "fuse.bindfs", "fuse", "fuseblk", "never-heard-of", ""])
def test_shared_and_unknown_ones_are_not(kind: str) -> None:
    judged = Locality.of("/p", kind)
    assert judged.kind == OTHER_KERNEL
    assert "/p" in judged.why
    assert (kind or "unknown") in judged.why


def test_either_folder_can_make_it_foreign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "MACOS", False)
    monkeypatch.setattr(module, "filesystem_of", lambda path: "virtiofs" if path.endswith("palace") else "ext4")
    found = locate(StateFiles(str(tmp_path), str(tmp_path / "palace")))
    assert (found.kind, found.filesystem) == (OTHER_KERNEL, "virtiofs")
    found = locate(StateFiles(str(tmp_path), str(tmp_path)))
    assert found.kind == SAME_KERNEL


def test_a_mac_is_one_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "MACOS", True)
    assert locate(StateFiles(str(tmp_path), str(tmp_path))).kind == SAME_KERNEL


def test_this_machine(tmp_path: Path) -> None:
    assert locate(StateFiles(str(tmp_path), str(tmp_path))).kind == SAME_KERNEL
