"""Containers with a share of another kernel and no bridge: the first one opens the palace itself. No engine is needed
to see who listens where.
"""

from __future__ import annotations

import contextlib
import json
import os

from tests import netbox
from tests.elsewhere import Side
from tests.harness import World
from tests.net.test_ssh_container import INSIDE, require_shares, shared
from tests.netbox import Box


def test_a_direct_broker_listens_inside_its_container_and_the_next_container_is_told() -> None:
    netbox.require_boxes()
    require_shares()
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(World(None, env={"MEMPALACE_BROKER_ENGINE": "/nowhere/python"}))
        (world.state_root / "config.json").write_text("{}")
        seen = stack.enter_context(shared(world.state_root, world.root / "seen"))
        one, two = (Side(world, stack.enter_context(Box(name, {seen: INSIDE}))) for name in ("one", "two"))
        told = [one.cli("ensure", "--json") for _ in range(2)]
        assert [done.returncode for done in told] == [0, 0], told
        first, again = (json.loads(done.stdout) for done in told)
        assert first["pid"] == again["pid"], "agents of one container share it"
        endpoint = first["endpoint"].removeprefix("unix:")
        assert not endpoint.startswith(INSIDE)
        assert not [name for name in os.listdir(world.state_root) if name.endswith(".sock")]
        refused = two.cli("ensure")
        assert refused.returncode != 0
        for word in ("another container of this machine", "(one, pid", "ssh or tcp"):
            assert word in refused.stderr
        stopped = one.cli("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert two.cli("ensure").returncode == 0
        assert two.cli("stop").returncode == 0
