"""Files of an earlier broker in the root: moved once where that is safe, never believed, never followed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mempalace_broker.broker.old_files import move_old_files
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.private import VARIABLE

LOG = logging.getLogger("test.old_files")


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    (tmp_path / "root").mkdir()
    made = StateFiles(str(tmp_path / "root"), str(tmp_path / "root/palace"), env={VARIABLE: str(tmp_path / "private")})
    assert made.private.make() == ""
    Path(made.log).touch()  # whoever started the broker opened it
    return made


def test_the_log_is_moved_and_what_others_could_have_written_removed(
    files: StateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = Path(files.root)
    for name in ("broker.log", "broker.log.1", "broker-exit.json", "broker-answers.json", "broker.json"):
        (root / name).write_text(name)
    move_old_files(files, LOG)
    assert [path.name for path in root.iterdir()] == ["broker.json"]
    assert Path(files.log).read_text() == "(moved) broker.log"
    assert Path(files.log + ".1").read_text() == "(moved) broker.log.1"
    assert files.exit.read(100) is None
    assert files.answers.read(100) is None
    assert f"moved {root}/broker.log to {files.log}" in caplog.messages
    for name in ("broker-answers.json", "broker-exit.json"):
        assert any(f"removed {root}/{name}" in text for text in caplog.messages)


def test_what_is_there_already_is_not_written_over(files: StateFiles) -> None:
    Path(files.log).write_text("mine")
    Path(files.root, "broker.log").write_text("forged")
    move_old_files(files, LOG)
    assert Path(files.log).read_text() == "mine"
    assert not os.listdir(files.root)


def test_nothing_old_is_nothing_to_do(files: StateFiles, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    move_old_files(files, LOG)
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_not_a_file_stays_where_it_is(files: StateFiles, tmp_path: Path, kind: str) -> None:
    secret, old = tmp_path / "secret", Path(files.root, "broker.log")
    secret.write_text("secret")
    if kind == "link":
        old.symlink_to(secret)
    elif kind == "folder":
        old.mkdir()
    else:
        os.mkfifo(old)
    move_old_files(files, LOG)
    assert Path(files.log).read_text() == ""
    assert secret.read_text() == "secret"
    assert os.path.lexists(old)
