"""Copies are brought up to date with whatever happened to the original, and follow no link."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from mempalace_broker.cli.backup.copying import Twin, copy_file, digest
from mempalace_broker.cli.backup.parts import is_safe
from mempalace_broker.system.shared_files import Untrusted

BLOCK = 1 << 18


def nothing(_: int) -> None:
    pass


@pytest.mark.parametrize("size", [0, 1, 4096, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
def test_a_copy_catches_up_with_changes_growth_and_shrinking(tmp_path: Path, size: int) -> None:
    rng = random.Random(size)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(rng.randbytes(size))
    copy_file(str(source), str(target), nothing)
    assert target.stat().st_mode & 0o777 == 0o600
    twin = Twin(str(source), str(target))
    assert twin.catch_up() == 0
    for new in (size + 5, size + 2 * BLOCK, max(0, size - 3), size // 2, size):
        with source.open("r+b") as file:
            file.truncate(new)
            for _ in range(3 if new else 0):
                file.seek(rng.randrange(new))
                file.write(b"x")
            file.truncate(new)
        twin.catch_up()
        assert digest(str(source)) == digest(str(target))
        assert twin.is_of(str(source))
    twin.close()
    source.rename(tmp_path / "c")
    source.write_bytes(b"")
    again = Twin(str(tmp_path / "c"), str(target))
    assert not again.is_of(str(source))
    again.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="no link is followed"):
        copy_file(str(tmp_path / "link"), str(tmp_path / "copy"), nothing)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Untrusted):
        copy_file(str(tmp_path / "fifo"), str(tmp_path / "copy"), nothing)
    assert not (tmp_path / "copy").exists()


def test_a_file_that_claims_more_than_the_disk_has_is_not_copied(tmp_path: Path) -> None:
    """A guest can make one that takes no room itself; its copy would fill the disk."""
    source, target = tmp_path / "sparse", tmp_path / "copy"
    source.touch()
    copy_file(str(source), str(target), nothing)
    twin = Twin(str(source), str(target))
    os.truncate(source, 4 << 40)
    with pytest.raises(OSError, match=r"4,398,046,511,104 bytes does not fit"):
        twin.catch_up()
    twin.close()
    assert target.stat().st_size == 0
    target.unlink()
    with pytest.raises(OSError, match="does not fit"):
        copy_file(str(source), str(target), nothing)


def test_no_more_is_copied_of_a_file_that_grows_than_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "growing", tmp_path / "copy"
    source.write_bytes(b"x" * BLOCK)

    def grow(_: int) -> None:
        with source.open("ab") as file:
            file.write(b"x" * BLOCK)

    copy_file(str(source), str(target), grow)
    assert target.stat().st_size == BLOCK


@pytest.mark.parametrize("name", ["palace/../x", "palace", "/etc/passwd", "palace//x", "other/x", "palace/./x", ""])
def test_a_manifest_names_nothing_outside(name: str) -> None:
    assert not is_safe(name)
    assert is_safe("palace/a/b.bin")
