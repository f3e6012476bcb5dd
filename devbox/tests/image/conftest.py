"""Fixtures of the tests of `pi-devbox image`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devbox.tests.image.gitserver import GitServer, Repository


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "srv") as made:
        yield made


@pytest.fixture
def kit(server: GitServer) -> Repository:
    return Repository(server.folder / "me" / "kit.git")
