"""A failed start, noted for others that waited for it: for a moment, bounded, and printable."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.errors import StartFailed
from mempalace_broker.system.private import PrivateFile, PrivateFolder
from mempalace_broker.system.start_failure import COUNTS_S, forget_failure, note_failure, recent_failure

NOW = 1_800_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> PrivateFile:
    return PrivateFolder(str(tmp_path), ()).file("failure.json")


def test_a_failure_counts_for_a_moment(file: PrivateFile) -> None:
    assert recent_failure(file, NOW) is None
    note_failure(file, StartFailed("on fire " * 10_000, hint="put it out"), NOW)
    found = recent_failure(file, NOW)
    assert found is not None
    assert found.message.startswith("on fire")
    assert len(found.message) == 2000
    assert found.hint == "put it out"
    assert recent_failure(file, NOW + COUNTS_S) is None, "old"
    assert recent_failure(file, NOW - 100) is None, "from the future: a clock was set"
    forget_failure(file)
    assert recent_failure(file, NOW) is None, "somebody tries again"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"[]",
        b"[" * 10_000,
        b'{"failed": 7, "at": 1800000000}',
        b'{"failed": "", "at": 1800000000}',
        b'{"failed": "x", "at": null}',
        b'{"failed": "x", "at": 1e999}',
        b'{"failed": "x", "at": NaN}',
    ],
)
def test_bodies_that_say_nothing(file: PrivateFile, body: bytes) -> None:
    Path(file.path).write_bytes(body)
    assert recent_failure(file, NOW) is None


def test_what_a_terminal_would_obey_is_seen(file: PrivateFile) -> None:
    note_failure(file, StartFailed("\x1b]0;x\x07", hint="\u202e"), NOW)
    assert str(recent_failure(file, NOW)) == r"\x1b]0;x\x07 Hint: \u202e"


def test_without_a_private_folder_nothing_is_noted_and_nothing_fails() -> None:
    nowhere = PrivateFolder("", ()).file("failure.json")
    note_failure(nowhere, StartFailed("on fire"), NOW)
    forget_failure(nowhere)
    assert recent_failure(nowhere, NOW) is None
