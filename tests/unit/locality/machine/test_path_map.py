"""A container's path as the host's: known, or refused; never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.locality.machine.path_map import Mount, PathMap, join, mount_of, read_mounts, under

HOST = [
    Mount("8:1", "/", "/", "ext4"),
    Mount("8:2", "/", "/data", "xfs"),
    Mount("0:50", "/", "/data/scratch", "tmpfs"),
]
# docker run -v /home/me/.mempalace:/home/dev/.mempalace -v /data/work:/workspace
BOX = [
    Mount("0:99", "/", "/", "overlay"),
    Mount("8:1", "/home/me/.mempalace", "/home/dev/.mempalace", "ext4"),
    Mount("8:2", "/work", "/workspace", "xfs"),
    Mount("8:2", "/scratch/under", "/covered", "xfs"),
    Mount("8:1", "/srv/data", "/workspace/deep", "ext4"),
]
# a Mac's virtual machine: one export, several folders of it
VM = [
    Mount("0:1", "/", "/", "overlay"),
    Mount("0:33", "/Users/me/.mempalace", "/home/dev/.mempalace", "virtiofs"),
    Mount("0:33", "/Users/me/work", "/workspace", "virtiofs"),
    Mount("0:44", "/Users/me/other", "/other", "virtiofs"),
]


def box(fixed: dict[str, str] | None = None) -> PathMap:
    return PathMap(
        mine=BOX,
        theirs=HOST,
        palace_mine="/home/dev/.mempalace/palace",
        palace_theirs="/home/me/.mempalace/palace",
        same_kernel=True,
        fixed=fixed,
    )


def machine(there: str = "/Users/me/.mempalace/palace", mine: list[Mount] = VM) -> PathMap:
    return PathMap(
        mine=mine,
        theirs=[],
        palace_mine="/home/dev/.mempalace/palace",
        palace_theirs=there,
        same_kernel=False,
    )


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/home/dev/.mempalace", "/home/me/.mempalace"),
        ("/home/dev/.mempalace/notes/a.md", "/home/me/.mempalace/notes/a.md"),
        ("/workspace", "/data/work"),
        ("/workspace/src/x", "/data/work/src/x"),
        ("/workspace/deep/x", "/srv/data/x"),
        ("/home/dev/project", None),  # the container's own
        ("/covered/x", None),  # the host has mounted something over it
        ("/", None),
    ],
)
def test_under_one_kernel_the_mount_tables_tell(path: str, there: str | None) -> None:
    assert box().translate(path) == there


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/home/dev/.mempalace/notes", "/Users/me/.mempalace/notes"),
        ("/workspace/src", "/Users/me/work/src"),
        ("/other/x", None),  # another export, whose place on the host is not known
        ("/home/dev/project", None),
    ],
)
def test_across_kernels_the_state_root_anchors_its_export(path: str, there: str | None) -> None:
    assert machine().translate(path) == there


def test_an_export_that_names_its_folders_otherwise_teaches_nothing_but_the_state_root() -> None:
    assert machine("/Volumes/x/mem/palace").translate("/workspace/src") is None
    assert machine("/Volumes/x/mem/palace").translate("/home/dev/.mempalace/a") == "/Volumes/x/mem/a"


def test_an_export_of_the_state_root_alone() -> None:
    mine = [Mount("0:1", "/", "/", "overlay"), Mount("0:9", "/", "/home/dev/.mempalace", "9p")]
    assert machine(mine=mine).translate("/home/dev/.mempalace/a") == "/Users/me/.mempalace/a"
    assert machine(mine=mine).translate("/home/dev/a") is None


def test_the_users_table_comes_first_and_its_longest_prefix_wins() -> None:
    fixed = {"/workspace": "/Users/me/a", "/workspace/b": "/Users/me/bb"}
    assert box(fixed).translate("/workspace/x") == "/Users/me/a/x"
    assert box(fixed).translate("/workspace/b/x") == "/Users/me/bb/x"
    assert box(fixed).translate("/workspaces/x") is None


def test_what_is_mounted_inside_the_state_root_is_not_the_state_root() -> None:
    mine = [*VM, Mount("0:77", "/", "/home/dev/.mempalace/cache", "tmpfs")]
    assert machine(mine=mine).translate("/home/dev/.mempalace/cache/x") is None


def test_a_palace_without_a_root_of_its_own_anchors_itself_only() -> None:
    found = PathMap(
        mine=[Mount("0:1", "/", "/", "overlay"), Mount("0:9", "/", "/mem", "virtiofs")],
        theirs=[],
        palace_mine="/mem",
        palace_theirs="/Users/me/mem",
        same_kernel=False,
    )
    assert found.translate("/mem/a") == "/Users/me/mem/a"
    assert found.translate("/a") is None


def test_an_export_that_begins_deeper_on_the_host_and_holds_the_state_root_in_a_folder() -> None:
    mine = [
        Mount("0:1", "/", "/", "overlay"),
        Mount("0:33", "/me", "/home/dev", "virtiofs"),
        Mount("0:33", "/me/work", "/workspace", "virtiofs"),
    ]
    assert machine(mine=mine).translate("/workspace/src") == "/Users/me/work/src"


def test_a_palace_of_another_name_on_one_side_says_nothing_about_the_folder_around_it() -> None:
    found = PathMap(
        mine=[Mount("0:1", "/", "/", "overlay"), Mount("0:9", "/", "/data", "virtiofs")],
        theirs=[],
        palace_mine="/data/palace",
        palace_theirs="/Users/me/mem",
        same_kernel=False,
    )
    assert found.translate("/data/palace/a") == "/Users/me/mem/a"
    assert found.translate("/data/a") is None


def test_of_two_mounts_on_one_folder_the_later_covers_the_earlier() -> None:
    earlier, later = Mount("1:1", "/", "/x", "ext4"), Mount("2:2", "/", "/x", "ext4")
    assert mount_of("/x/a", [earlier, later]) == later


@pytest.mark.parametrize("rows", [None, 7, "x", [7], [["a"]], [["a", "b", "c", 7]]])
def test_rows_of_anything_are_not_mounts(rows: object) -> None:
    assert read_mounts(rows) == []


paths = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(lambda steps: "/" + "/".join(steps))
tables = st.lists(st.builds(Mount, st.sampled_from(["1:1", "2:2"]), paths, paths, st.just("ext4")), max_size=4).map(
    lambda rest: [Mount("1:1", "/", "/", "ext4"), *rest]
)


@given(tables, tables, paths)
def test_what_is_translated_is_the_same_file(mine: list[Mount], theirs: list[Mount], path: str) -> None:
    """The file's (device, path inside it) is the same on both sides: that is what "the same file" means."""
    found = PathMap(mine=mine, theirs=theirs, palace_mine="/none", palace_theirs="/none", same_kernel=True).translate(
        path
    )
    if found is not None:
        assert _identity(found, theirs) == _identity(path, mine)


def _identity(path: str, table: list[Mount]) -> tuple[str, str]:
    mount = mount_of(path, table)
    assert mount is not None
    return mount.dev, join(mount.root, under(path, mount.point) or "")
