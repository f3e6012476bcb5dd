"""A whole home of the host in the container is recognised; the palace, projects and volumes are not one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pi_devbox.home.mounts import Mount, mounts, whole_homes

HOME = "/home/developer"
PALACE = (f"{HOME}/.mempalace", "/me/.mempalace")
VOLUME = (HOME, "/var/lib/docker/volumes/image_home/_data")
OWN = {f"{HOME}/.mempalace", f"{HOME}/.config/mempalace-broker"}  # of the container itself


@pytest.mark.parametrize(
    ("there", "files", "homes"),
    [
        ([("/", "/"), VOLUME, PALACE, ("/workspace", "/me/code")], OWN, []),
        ([VOLUME, ("/workspace", "/me")], {*OWN, "/workspace/.mempalace"}, ["/workspace"]),
        ([VOLUME, ("/workspace", "/me")], {*OWN, "/workspace/.config/mempalace-broker"}, ["/workspace"]),
        ([(HOME, "/home/me")], OWN, [HOME]),
        ([(HOME, "/srv/devbox"), PALACE], OWN, []),
        ([VOLUME], OWN, []),
        ([], OWN, []),
        ([("/host", "/")], {"/host/root/.mempalace"}, ["/host/root"]),
    ],
)
def test_whole_homes(there: list[tuple[str, str]], files: set[str], homes: list[str]) -> None:
    found = [Mount(Path(point), shows) for point, shows in there]
    assert whole_homes(found, Path(HOME), lambda path: str(path) in files) == [Path(home) for home in homes]


def test_homes_below_a_mount(tmp_path: Path) -> None:
    (tmp_path / "home/me/.mempalace").mkdir(parents=True)
    (tmp_path / "home/other").mkdir()
    assert whole_homes([Mount(tmp_path, "/")], Path(HOME)) == [tmp_path / "home/me"]


def test_the_mounts_of_this_machine() -> None:
    assert Path("/proc") in [mount.point for mount in mounts()]
