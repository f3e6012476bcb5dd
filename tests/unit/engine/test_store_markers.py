"""The file that says in which database the drawers are is never seen torn, and a torn one is mended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.store_markers import guard_markers


class UnreadableError(Exception):
    pass


def make_backend(**changed: Any) -> Any:
    """A backend that writes and reads its marker as mempalace's do; a write that is `killed` leaves half of it."""

    class Backend:
        name = "pgvector"
        killed = False
        writes = 0

        @staticmethod
        def _marker_path(palace_path: str) -> str:
            return os.path.join(palace_path, "pgvector_backend.json")

        def _marker_target(self, palace: Any, config: Any) -> dict[str, str]:
            return {"address": config}

        def _read_marker(self, palace: Any) -> Any:
            path = self._marker_path(palace.local_path)
            if not os.path.isfile(path):
                return None
            try:
                with open(path, encoding="utf-8") as file:
                    return json.load(file)
            except (OSError, ValueError) as exc:
                raise UnreadableError from exc

        def _write_marker(self, palace: Any, config: Any) -> None:
            self.writes += 1
            text = json.dumps({"backend": self.name, self.name: self._marker_target(palace, config)})
            with open(self._marker_path(palace.local_path), "w", encoding="utf-8") as file:
                file.write(text[: len(text) // 2] if self.killed else text)
            if self.killed:
                raise KeyboardInterrupt

    for name, value in changed.items():
        setattr(Backend, name, value)
    mempalace: Any = SimpleNamespace(module=lambda name: SimpleNamespace(get_backend=lambda _: Backend()))
    guard_markers(mempalace, "pgvector", "chroma", None)
    return Backend()


@pytest.fixture
def palace(tmp_path: Path) -> Any:
    return SimpleNamespace(local_path=str(tmp_path))


def test_it_is_written_once_for_each_target(palace: Any, tmp_path: Path) -> None:
    backend = make_backend()
    for config in ("one", "one", "two", "two"):
        backend._write_marker(palace, config)
        assert backend._read_marker(palace)["pgvector"] == {"address": config}
    assert backend.writes == 2
    assert [path.name for path in tmp_path.iterdir()] == ["pgvector_backend.json"]


def test_a_kill_leaves_the_one_that_was_there(palace: Any) -> None:
    backend = make_backend()
    backend._write_marker(palace, "one")
    backend.killed = True
    with pytest.raises(KeyboardInterrupt):
        backend._write_marker(palace, "two")
    assert make_backend()._read_marker(palace)["pgvector"] == {"address": "one"}


@pytest.mark.parametrize("left", ["", "{", '{"backend": "pgv'])
def test_one_that_is_torn_counts_as_missing_and_is_written_again(palace: Any, tmp_path: Path, left: str) -> None:
    (tmp_path / "pgvector_backend.json").write_text(left)
    backend = make_backend()
    assert backend._read_marker(palace) is None
    backend._write_marker(palace, "one")
    assert backend._read_marker(palace)["pgvector"] == {"address": "one"}


def test_what_mempalace_never_wrote_is_left_to_it(palace: Any, tmp_path: Path) -> None:
    (tmp_path / "pgvector_backend.json").write_text("mine")
    backend = make_backend()
    with pytest.raises(UnreadableError):
        backend._read_marker(palace)


def test_a_backend_that_does_it_otherwise_stays_as_it_is(palace: Any) -> None:
    def write(self: Any, where: Any) -> None: ...

    backend = make_backend(_write_marker=write)
    assert type(backend)._write_marker is write
