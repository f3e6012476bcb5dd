"""The real engine with a hook inside: an environment over its own, in which code of the test's runs first."""

from __future__ import annotations

from pathlib import Path

from tests.harness import World, engine_python

_STEADY = """
import importlib.machinery, sys

TIMES_TO_LIVE = {
    "mempalace.palace_graph": "_GRAPH_CACHE_TTL",
    "mempalace.mcp_server": "_NODE_PROFILE_TTL_S",  # from 3.7 on
}

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in TIMES_TO_LIVE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            if hasattr(module, TIMES_TO_LIVE[name]):
                setattr(module, TIMES_TO_LIVE[name], float("inf"))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder)
"""


def hooked(folder: Path, real: Path, code: str) -> Path:
    """Make a virtual environment over a real engine's in which `code` runs first; its interpreter."""
    (library,) = real.parent.parent.glob("lib/python3*/site-packages")
    own = folder / library.relative_to(real.parent.parent)
    own.mkdir(parents=True)
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.symlink_to(real.resolve())
    (folder / "pyvenv.cfg").write_text((real.parent.parent / "pyvenv.cfg").read_text())
    (own / "a_real.pth").write_text(f"{library}\n")
    (own / "b_hook.pth").write_text("import mpb_hook\n")
    (own / "mpb_hook.py").write_text(code)
    for info in library.glob("mempalace-*.dist-info"):
        (own / info.name).symlink_to(info)
    return python


def steady(folder: Path, which: str) -> Path:
    """An engine whose answers do not depend on how long it takes: what it caches never expires. Its interpreter.

    mempalace keeps the palace's graph and its own profile for a minute and does not notice every change. Two sides that
    answer the same calls one after the other differ where one of them, on a busy machine, is past that minute.
    """
    return hooked(folder, engine_python(which), _STEADY)


def make_steady(world: World) -> None:
    """Let the broker's engine and bare servers of a world be steady."""
    assert world.engine is not None
    python = steady(world.root / "steady", world.engine)
    world.env["MEMPALACE_BROKER_ENGINE"] = str(python)
    world.server = [str(python), *world.server]
