"""Options of the simulator: `pytest tests/sim --sim-seed=N` plays one history again."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seed", type=int, default=None, help="play this one history of the simulator")
