"""A skeleton is brought into a home, at every start, by any image."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pi_devbox.home import fill as filling
from pi_devbox.home.fill import MANIFEST, fill

Images = Callable[..., Path]
PI = {".pi/settings.json": '{"packages": ["/opt/a"]}', ".npmrc": "old\n", ".claude.json": "{}"}
STUDIO = {**PI, ".pi/settings.json": '{"packages": ["/opt/a", "/opt/studio"]}', ".npmrc": "new\n", ".inputrc": "x\n"}


@pytest.fixture
def image(tmp_path: Path) -> Images:
    """Make a skeleton with these files."""

    def make(files: dict[str, str]) -> Path:
        made = tmp_path / f"skeleton-{len(list(tmp_path.iterdir()))}"
        for name, text in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text)
        (made / ".local/bin").mkdir(parents=True)
        return made

    return make


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def start(skeleton: Path, home: Path, *foreign: Path) -> list[str]:
    """One start; return what it says."""
    said: list[str] = []
    fill(skeleton, home, foreign, said.append)
    return said


def content(home: Path) -> dict[str, str]:
    """All files of the home but the lock."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(home)): path.read_text() for path in files}


def test_a_new_home_gets_everything(image: Images, home: Path) -> None:
    skeleton = image(PI)
    (skeleton / ".npmrc").chmod(0o640)
    assert start(skeleton, home) == []
    assert {name: (home / name).read_text() for name in PI} == PI
    assert stat.S_IMODE((home / ".npmrc").stat().st_mode) == 0o640
    assert (home / ".local/bin").is_dir()
    assert json.loads((home / MANIFEST).read_text()) == PI


def test_a_newer_image_brings_what_is_new_and_an_older_one_takes_it_away(image: Images, home: Path) -> None:
    start(image(PI), home)
    (home / ".pi/settings.json").write_text('{"packages": ["/opt/a", "/mine"], "model": "x"}')
    (home / ".pi/settings.json").chmod(0o600)
    assert start(image(STUDIO), home) == []
    settings = json.loads((home / ".pi/settings.json").read_text())
    assert settings == {"packages": ["/opt/a", "/mine", "/opt/studio"], "model": "x"}
    assert stat.S_IMODE((home / ".pi/settings.json").stat().st_mode) == 0o600
    assert (home / ".npmrc").read_text() == "new\n"
    assert (home / ".inputrc").read_text() == "x\n"
    start(image({}), home)
    start(image(PI), home)
    assert json.loads((home / ".pi/settings.json").read_text())["packages"] == ["/opt/a", "/mine"]
    assert (home / ".inputrc").exists()


def test_a_second_start_writes_nothing(image: Images, home: Path) -> None:
    skeleton = image(STUDIO)
    start(image(PI), home)
    start(skeleton, home)

    def stamps() -> dict[Path, tuple[int, int, int]]:
        found = {path: path.lstat() for path in home.rglob("*")}  # to read a folder changes its time of access
        return {path: (info.st_ino, info.st_mtime_ns, info.st_ctime_ns) for path, info in found.items()}

    before = stamps()
    assert start(skeleton, home) == []
    assert stamps() == before


def test_what_the_user_changed_or_removed_stays(image: Images, home: Path) -> None:
    start(image(PI), home)
    (home / ".npmrc").write_text("mine\n")
    (home / ".claude.json").unlink()
    studio = image(STUDIO)
    assert start(studio, home) == [
        f"{home}/.npmrc differs from what the image brings: yours is kept. Hint: compare it with {studio}/.npmrc"
    ]
    assert start(studio, home) == []
    assert (home / ".npmrc").read_text() == "mine\n"
    assert not (home / ".claude.json").exists()


def test_links_and_files_of_the_host_are_left_alone(image: Images, home: Path, tmp_path: Path) -> None:
    (home / ".pi").mkdir()
    (home / ".pi/settings.json").write_text("{}")
    (home / ".claude.json").symlink_to("nowhere")
    (tmp_path / "mine").write_text("{}")
    (home / ".npmrc").symlink_to(tmp_path / "mine")
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles/opencode.json").write_text("{}")
    (home / ".config").symlink_to(tmp_path / "dotfiles")
    assert start(image({**STUDIO, ".config/opencode.json": '{"mcp": {}}'}), home, home / ".pi") == []
    assert (tmp_path / "dotfiles/opencode.json").read_text() == "{}"
    assert (home / ".pi/settings.json").read_text() == (home / ".npmrc").read_text() == "{}"
    assert os.readlink(home / ".claude.json") == "nowhere"


def test_broken_json_is_kept_and_named_at_every_start(image: Images, home: Path) -> None:
    start(image(PI), home)
    (home / ".pi/settings.json").write_text('{"packages": [')
    studio = image(STUDIO)
    for _ in range(2):
        (said,) = start(studio, home)
        assert f"{home}/.pi/settings.json is not plain JSON" in said
        assert f"compare it with {studio}/.pi/settings.json" in said
    (home / ".pi/settings.json").write_text('{"packages": []}')
    assert start(studio, home) == []
    assert json.loads((home / ".pi/settings.json").read_text()) == {"packages": ["/opt/studio"]}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("step", range(10))
def test_a_kill_at_any_step_loses_nothing(
    image: Images, home: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    studio = image(STUDIO)
    start(image(PI), home)
    (home / ".pi/settings.json").write_text('{"packages": ["/opt/a", "/mine"]}')
    steps = iter(range(100))

    def kill(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object) -> None:
            if next(steps) == step:
                raise Killed
            real(*args)

        monkeypatch.setattr(os, name, call)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda _path: None)  # a killed process tidies nothing
        kill("fsync")
        kill("replace")
        try:
            fill(studio, home, [], lambda _text: None)
        except Killed:
            assert json.loads((home / ".pi/settings.json").read_text())["packages"][:2] == ["/opt/a", "/mine"]
    monkeypatch.undo()
    start(studio, home)
    assert json.loads((home / ".pi/settings.json").read_text())["packages"] == ["/opt/a", "/mine", "/opt/studio"]
    assert (home / ".npmrc").read_text() == "new\n"
    assert not [name for name in content(home) if ".devbox." in name]


def test_what_can_not_be_written_is_said_and_tried_again(
    image: Images, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(image(PI), home)
    studio = image(STUDIO)
    with monkeypatch.context() as patch:
        patch.setattr(filling, "_write", lambda *_: os.mkdir(home))  # any OSError
        said = start(studio, home)
    assert [line.partition(" ")[0] for line in said] == [f"{home}/{name}" for name in sorted(STUDIO)[1:]]
    assert start(studio, home) == []
    assert (home / ".npmrc").read_text() == "new\n"


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "[" * 100_000])
def test_a_damaged_manifest_is_said_and_written_anew(image: Images, home: Path, text: str) -> None:
    skeleton = image(PI)
    start(skeleton, home)
    (home / ".npmrc").write_text("mine\n")
    (home / MANIFEST).write_text(text)
    assert f"{home / MANIFEST} is damaged" in start(skeleton, home)[0]
    assert (home / ".npmrc").read_text() == "mine\n"
    assert json.loads((home / MANIFEST).read_text()) == PI


def test_another_container_that_does_not_end(image: Images, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(filling, "WAIT_S", 1)
    (home / MANIFEST).parent.mkdir(parents=True)
    with (home / MANIFEST).with_name("lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (said,) = start(image(PI), home)
    assert "another container" in said
    assert not (home / ".npmrc").exists()
