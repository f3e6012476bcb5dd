"""`selftest --share` with its halves on two kernels: what a person with a Mac runs, where we can look."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.elsewhere import Side
from tests.harness import World
from tests.vm.conftest import INSIDE

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("vm")]  # one guest for all

SHARE = ["selftest", "--json", "--share"]


def test_the_halves_find_what_leases_rest_on(world: World, guest: Side) -> None:
    argv = [str(world.root / "bin" / "mempalace-broker"), *SHARE, str(world.state_root)]
    here = subprocess.Popen(argv, env=world.env, stdout=subprocess.PIPE, text=True, cwd=world.cwd)
    there = guest.cli(*SHARE, INSIDE, timeout=120)
    told, _ = here.communicate(timeout=60)
    reports = [json.loads(told), json.loads(there.stdout)]
    for report in reports:
        rows = {row["name"]: row for row in report["checks"]}
        print({name: (row["verdict"], row["figure"]) for name, row in rows.items()})
        assert {row["verdict"] for row in rows.values()} == {"ok"}, rows
        assert rows["share: socket"]["figure"].endswith("connect ECONNREFUSED")
    assert reports[1]["machine"]["share"] == "virtiofs, another kernel's"
    assert [name for name in world.state_root.iterdir() if "selftest" in name.name] == []
