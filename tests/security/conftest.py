from __future__ import annotations

import pytest

from tests.harness import Broker, World


@pytest.fixture
def broker(world: World) -> Broker:
    """A broker of the host whose engine is up, with a session that stays."""
    world.shim().initialize()
    found = world.broker()
    found.engine_pid()
    return found
