"""Which kernel owns the palace, by the filesystem that it lies on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.locality import locality as module
from mempalace_broker.locality.locality import OTHER_KERNEL, SAME_KERNEL, Locality, locate
from mempalace_broker.locality.mounts import is_local
from mempalace_broker.system import darwin, kernel
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


@pytest.mark.parametrize("told", [("apfs", True), ("exfat", True), ("of tomorrow", True), ("", None)])
def test_a_mac_is_one_kernel_for_its_own_disks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: tuple[str, bool | None]
) -> None:
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(darwin, "filesystem", lambda path: told)
    assert locate(StateFiles(str(tmp_path), str(tmp_path))).kind == SAME_KERNEL
    assert is_local(str(tmp_path)) is told[1]


@pytest.mark.parametrize("told", [("smbfs", False), ("of tomorrow", False), ("virtio-fs", True), ("macfuse", True)])
def test_a_mac_is_one_kernel_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: tuple[str, bool | None]
) -> None:
    """Two Macs that have a palace on a server must not both own it."""
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(darwin, "filesystem", lambda path: told if path.endswith("share") else ("apfs", True))
    (tmp_path / "share").mkdir()
    palace = str(tmp_path / "share" / "palace" / "not" / "there" / "yet")
    found = locate(StateFiles(str(tmp_path), palace))
    assert (found.kind, found.filesystem) == (OTHER_KERNEL, told[0])
    assert is_local(palace) is False
    assert is_local(str(tmp_path)) is True


def test_this_machine(tmp_path: Path) -> None:
    assert locate(StateFiles(str(tmp_path), str(tmp_path))).kind == SAME_KERNEL
