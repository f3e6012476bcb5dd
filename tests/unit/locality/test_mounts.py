"""Which filesystem holds a path, by the longest mount point that contains it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.locality import mounts
from mempalace_broker.locality.mounts import filesystem_of, is_local, mount_table
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
    ("row", "seen"),
    [
        ("{0} {1} 0:{0} / /m/{0} rw - tmpfs t rw", 20_000),
        ("{0} {1} 0:{0} / / rw - tmpfs t rw", 1),
        ("{0} 1 0:{0} / /m/{0} rw - tmpfs t rw", 20_000),
    ],
    ids=["a chain of folders", "a chain on one folder", "side by side"],
)
def test_thousands_of_mounts_cost_little(row: str, seen: int) -> None:
    """A guest has as many as it likes, and the broker reads its table: this took minutes, or all of the stack."""
    rows = ["1 0 8:1 / / rw - ext4 x rw", *(row.format(number, number - 1) for number in range(2, 20_001))]
    began = time.monotonic()
    assert len(mount_table("\n".join(rows))) == seen
    assert time.monotonic() - began < 20.0


numbers = st.sampled_from(["1", "2", "3", "4", "x"])
points = st.sampled_from(["/", "/a", "/a/b", "/ab", "//", "a", "", "/a/", "/\\040", "/\udc80"])
rows = (
    st.builds("{} {} 0:1 / {} rw - {} x rw".format, numbers, numbers, points, st.sampled_from(["ext4", ""])) | st.text()
)


@given(st.lists(rows, max_size=12))
def test_any_table_is_read(table: list[str]) -> None:
    text = "\n".join(table)
    found = mount_table(text)
    assert len(found) <= len(text.splitlines())
    assert all(" - " in text and mount.kind for mount in found)


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("ext4", True), ("overlay", True), ("virtiofs", False), ("9p", False), ("fuse.osxfs", False), ("odd", None)],
)
def test_what_is_known_local(monkeypatch: pytest.MonkeyPatch, kind: str, verdict: bool | None) -> None:
    monkeypatch.setattr(mounts, "filesystem_of", lambda path: kind)
    monkeypatch.setattr(kernel, "MACOS", False)
    assert is_local("/x") is verdict


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
