"""Where a bridge's files are: in a folder that no other user can take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.route.bridge import files as module
from mempalace_broker.route.bridge.files import BridgeFiles
from mempalace_broker.route.bridge.wire import SshTarget


@pytest.mark.parametrize(("mode", "used"), [(0o700, True), (0o755, False), (0o770, False), (None, False)])
def test_the_runtime_folder_is_used_where_it_is_ours_alone(
    tmp_path: Path, mode: int | None, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RUNTIME", str(tmp_path))
    runtime = tmp_path / str(os.getuid())
    if mode is not None:
        runtime.mkdir()
        runtime.chmod(mode)
    files = BridgeFiles(SshTarget("host"))
    assert files.folder.startswith(f"{runtime}/mempalace-broker/" if used else "/tmp/mempalace-broker-")
    if used:
        assert not files.check()
        files.prepare()
        assert files.check()
        assert os.stat(files.folder).st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RUNTIME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / str(os.getuid())).symlink_to("elsewhere")
    assert BridgeFiles(SshTarget("host")).folder.startswith("/tmp/")
