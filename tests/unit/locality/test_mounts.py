"""Which filesystem holds a path, by the longest mount point that contains it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.locality import mounts
from mempalace_broker.locality.mounts import filesystem_of, is_local
from mempalace_broker.system import kernel

TABLE = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /nowhere/home rw - virtiofs mac rw
31 30 0:41 / /nowhere/home/me/my\040palace rw - tmpfs tmpfs rw
32 22 0:42 / /nowhere/over rw - ext4 /dev/vdb rw
33 32 0:43 / /nowhere/over rw - fuse.sshfs host: rw
garbage
34 22 0:44 / - nothing
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/x", "ext4"),
        ("/nowhere/home", "virtiofs"),
        ("/nowhere/home/me", "virtiofs"),
        ("/nowhere/homework", "ext4"),
        ("/nowhere/home/me/my palace/p", "tmpfs"),
        ("/nowhere/over/x", "fuse.sshfs"),
    ],
)
def test_the_longest_and_last_mount_wins(path: str, kind: str) -> None:
    assert filesystem_of(path, TABLE) == kind


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("ext4", True), ("overlay", True), ("virtiofs", False), ("9p", False), ("fuse.osxfs", False), ("odd", None)],
)
def test_what_is_known_local(monkeypatch: pytest.MonkeyPatch, kind: str, verdict: bool | None) -> None:
    monkeypatch.setattr(mounts, "filesystem_of", lambda path: kind)
    monkeypatch.setattr(kernel, "MACOS", False)
    assert is_local("/x") is verdict


def test_a_mac_can_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MACOS", True)
    assert is_local("/x") is None


def test_the_real_table(tmp_path: Path) -> None:
    assert filesystem_of(str(tmp_path / "not" / "there"))


COVERED = """
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:40 / /home/me/.mempalace rw - tmpfs tmpfs rw
31 30 0:41 / /home/me/.mempalace/deep rw - tmpfs tmpfs rw
32 22 0:42 / /home/me rw - virtiofs mac rw
33 32 0:43 / /home/me/own rw - ext4 /dev/vdb rw
34 33 0:44 / /home/me/own rw - xfs /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/.mempalace/palace", "virtiofs"),  # the tmpfs is under the later mount of /home/me
        ("/home/me/.mempalace/deep/x", "virtiofs"),
        ("/home/me/own/x", "xfs"),
        ("/home/x", "ext4"),
    ],
)
def test_what_a_later_mount_covers_does_not_count(path: str, kind: str) -> None:
    assert filesystem_of(path, COVERED) == kind
