from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError, UsageError
from mempalace_broker.system.token_file import ensure_token, read_token, replace_token, restore_token, token_path

TOKEN = "0f" * 32


def put(path: Path, mode: int, text: str = TOKEN + "\n") -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_made_once_for_its_owner_only(tmp_path: Path) -> None:
    made = ensure_token(str(tmp_path))
    assert len(made) == 64
    assert stat.S_IMODE(os.stat(token_path(str(tmp_path))).st_mode) == 0o600
    assert ensure_token(str(tmp_path)) == made
    assert os.listdir(tmp_path) == ["broker-token"]


def test_many_at_once_make_one(tmp_path: Path) -> None:
    found: list[str] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait(10)
        found.append(ensure_token(str(tmp_path)))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["broker-token"]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert ensure_token(str(tmp_path)) == read_token(token_path(str(tmp_path)))
    assert os.listdir(tmp_path) == ["broker-token"]


def test_replaced_and_restored(tmp_path: Path) -> None:
    old = ensure_token(str(tmp_path))
    new = replace_token(str(tmp_path))
    assert new != old
    assert ensure_token(str(tmp_path)) == new
    os.unlink(token_path(str(tmp_path)))
    restore_token(str(tmp_path), old)
    assert read_token(token_path(str(tmp_path))) == old


def test_none_stays_none(tmp_path: Path) -> None:
    assert read_token(str(tmp_path / "no")) is None
    assert read_token(str(tmp_path / "no" / "folder")) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660, 0o777])
def test_open_to_others(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match="others can read or change the token") as caught:
        read_token(put(tmp_path / "t", mode))
    assert "chmod 600" in caught.value.hint
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("text", ["", "short\n", TOKEN.upper(), TOKEN + TOKEN, "\0" * 64, "é" * 64])
def test_no_token_in_it_is_never_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="holds no token") as caught:
        read_token(put(tmp_path / "t", 0o600, text))
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_link_only_where_a_person_named_it(tmp_path: Path) -> None:
    put(tmp_path / "real", 0o600)
    link = tmp_path / "link"
    link.symlink_to("real")
    with pytest.raises(UsageError, match="cannot read the token"):
        read_token(str(link))
    assert read_token(str(link), given=True) == TOKEN


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root and of others")
def test_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = put(tmp_path / "secret", 0o444)  # as container engines mount them
    assert read_token(secret, given=True) == TOKEN
    with pytest.raises(UsageError, match="others can read"):
        read_token(secret)
    with pytest.raises(UsageError, match="others can read or change"):
        read_token(put(tmp_path / "open", 0o466), given=True)
    theirs = put(tmp_path / "theirs", 0o600)
    os.chown(theirs, 12345, -1)
    assert read_token(theirs) == TOKEN  # root of a container, and the palace's owner outside it
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(UsageError, match="belongs to another user"):
        read_token(theirs)


def test_a_pipe_under_that_name_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t", 0o600)
    with pytest.raises(UsageError, match="holds no token"):
        read_token(str(tmp_path / "t"))


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for make in (ensure_token, replace_token):
        with pytest.raises(StateRootError, match="cannot write"):
            make(str(tmp_path / "file"))
