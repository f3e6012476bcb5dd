"""What one side alone can find out about a share. The faults are forced: no local disk has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.lease import share_probe
from mempalace_broker.lease.machine.record import SIZE
from mempalace_broker.lease.share_probe import broken_promises, require_promises
from mempalace_broker.system.clock import Clock
from mempalace_broker.system.shared_files import SharedFolder


def test_a_local_disk_keeps_them_and_nothing_is_left(tmp_path: Path) -> None:
    require_promises(str(tmp_path), Clock())
    assert list(tmp_path.iterdir()) == []


def _twice(folder: SharedFolder, name: str, mode: int = 0o600) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT, mode, dir_fd=folder.fd)


def _unsynced(_: int) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize(
    ("where", "name", "fault", "said"),
    [
        (SharedFolder, "open_new", _twice, "created twice"),
        (share_probe, "_names", lambda _: [], "not listed"),
        (share_probe, "read_fresh", lambda *_: b"1" * SIZE, "written in place"),
        (share_probe, "sync_data", _unsynced, "Invalid argument"),
        (SharedFolder, "remove", lambda *_: True, "still there"),
    ],
)
def test_a_promise_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Callable[..., Any], said: str
) -> None:
    monkeypatch.setattr(where, name, fault)
    monkeypatch.setattr(Clock, "sleep", lambda *_: None)
    assert said in "; ".join(broken_promises(str(tmp_path), Clock(), 0.05))


def test_a_folder_that_breaks_one_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(StateRootError, match="proves nothing") as refused:
        require_promises(str(tmp_path / "missing"), Clock())
    assert "ssh" in refused.value.hint
    assert "tcp" in refused.value.hint
