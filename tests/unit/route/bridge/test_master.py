"""The user's ControlMaster: used only where nobody else can have put it there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from mempalace_broker.route.bridge import master
from mempalace_broker.route.bridge.master import distrust_control, find_user_master
from mempalace_broker.route.bridge.ssh import Ran, Ssh

STRANGER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class FakeSsh:
    """A configuration that names a control socket; keeps what it was told to run."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self.ran: list[list[str]] = []

    def settings(self) -> list[str]:
        return ["settings"]

    def tell(self, control: str, what: str) -> list[str]:
        return [what, control]

    def run(self, argv: list[str], limit: float) -> Ran:
        self.ran.append(argv)
        return Ran(0, f"user me\ncontrolpath {self._control}\n".encode(), "")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Path]:
    """A control socket that listens."""
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "cm"))
        listener.listen(5)
        yield folder / "cm"


def find(control: Path) -> tuple[master.UserMaster | None, list[list[str]]]:
    ssh = FakeSsh(control)
    return find_user_master(cast(Ssh, ssh)), ssh.ran


def test_the_users_own_is_used(control: Path) -> None:
    for mode in (0o700, 0o755, 0o1777):
        control.parent.chmod(mode)
        found, ran = find(control)
        assert found is not None
        assert found.alive()
        found.close()
        assert ["check", str(control)] in ran


def test_one_that_others_can_replace_is_not_even_asked(control: Path) -> None:
    control.parent.chmod(0o777)
    assert "can replace" in distrust_control(str(control))
    assert find(control) == (None, [["settings"]])


@needs_root
@pytest.mark.parametrize("which", ["socket", "folder"])
def test_one_of_another_user_is_not_even_asked(control: Path, which: str) -> None:
    os.chown(control if which == "socket" else control.parent, STRANGER, -1)
    assert str(STRANGER) in distrust_control(str(control))
    assert find(control) == (None, [["settings"]])


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_what_is_not_a_socket_is_not_even_asked(control: Path, kind: str) -> None:
    path = control.with_name("other")
    if kind == "link":
        path.symlink_to(control)
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
    assert "not a socket" in distrust_control(str(path))
    assert find(path) == (None, [["settings"]])


def test_a_listener_of_another_user_is_left(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "peer_uid", lambda sock: STRANGER)
    assert find(control)[0] is None
