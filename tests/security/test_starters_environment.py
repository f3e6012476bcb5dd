"""The environment and the limits of the agent that starts the broker hold for nobody else."""

from __future__ import annotations

import os
import resource
import stat
import sys

import pytest

from tests import proctools
from tests.harness import World, eventually

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]

POISON = "open({hit!r}, 'a').write('x')\nraise ImportError('of one project')\n"
ONLY_BEYOND_THE_SHIM = "import sys\nif 'shim' not in str(sys.orig_argv):\n    open({hit!r}, 'a').write('x')\n"
LIMITED = """
import os, resource, sys
os.umask(0)
for name, soft in (("FSIZE", 4096), ("NOFILE", 128), ("CORE", 4096)):
    number = getattr(resource, "RLIMIT_" + name)
    resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def environ(pid: int) -> dict[str, str]:
    words = os.fsdecode(proctools.environ_of(pid)).split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def readable(broker: int) -> list[int]:
    """The broker lets nobody look into it, but root."""
    return [broker] if os.geteuid() == 0 else []


def test_one_projects_modules_and_secrets_reach_neither_broker_nor_engine(world: World) -> None:
    project, hit = world.root / "project", world.root / "hit"
    for name in ("chromadb", "mempalace"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text(POISON.format(hit=str(hit)))
    (project / "sitecustomize.py").write_text(ONLY_BEYOND_THE_SHIM.format(hit=str(hit)))
    secrets = dict.fromkeys(("HF_TOKEN", "PGPASSWORD", "GITHUB_TOKEN", "MEMPALACE_LANG"), "s3cret")
    starter = {**secrets, "PYTHONPATH": str(project), "TZ": "Etc/GMT+12", "LC_ALL": "POSIX"}
    for env in (starter, {}):  # the second shim comes when the broker of the first is there
        shim = world.shim(env=env)
        shim.initialize()
        assert shim.call_tool("add_drawer", wing="w", room="r", content=f"of {shim}")["success"]
    assert not hit.exists()
    broker = world.broker()
    for pid in (broker.engine_pid(), *readable(broker.pid)):
        found = environ(pid)
        assert "s3cret" not in str(found)
        assert not {"PYTHONPATH", "TZ", "LC_ALL"} & set(found)
        assert found["LANG"] == "C.UTF-8"
    (entry,) = broker.status()["degraded"]
    assert "MEMPALACE_LANG" in entry["what"]
    assert str(world.settings) in entry["hint"]


def test_what_the_engine_needs_comes_from_the_users_settings(world: World) -> None:
    world.settings.write_text(f'[palaces."{world.palace}"]\nenv = {{ PGPASSWORD = "s3cret" }}\n')
    world.shim().initialize()
    broker = world.broker()
    assert environ(broker.engine_pid())["PGPASSWORD"] == "s3cret"
    assert not any("PGPASSWORD" in environ(pid) for pid in readable(broker.pid))
    assert "s3cret" not in str(broker.status())


def test_limits_and_umask_of_one_agent_are_nobody_elses(world: World) -> None:
    shim = world.program("mp-shim")
    first = world.spawn([sys.executable, "-c", LIMITED, shim], env={"PYTHONDONTWRITEBYTECODE": "1"})
    first.initialize()
    assert first.call_tool("add_drawer", wing="w", room="r", content="heron " * 2000)["success"]
    broker = world.broker()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for pid in (broker.pid, broker.engine_pid()):
        assert proctools.limits_of(pid, resource.RLIMIT_FSIZE)[0] == hard
        assert proctools.limits_of(pid, resource.RLIMIT_NOFILE)[0] >= 1024
        assert proctools.limits_of(pid, resource.RLIMIT_CORE)[0] == 0
    eventually(lambda: proctools.limits_of(first.pid, resource.RLIMIT_CORE)[0] == 0, what="a shim that dumps no core")
    assert broker.status()["degraded"] == []
    files = [world.palace, *world.palace.rglob("*"), *world.private.rglob("*"), *world.state_root.glob("broker*")]
    assert [path for path in files if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []
