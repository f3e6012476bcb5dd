"""The real engine with a fault inside: a virtual environment whose engine misbehaves when a call holds a trigger.

A trigger is part of any argument of a tools/call: FAULT:hang (never answers), FAULT:hold (does its work, but answers
only after `release`, whatever happens to the broker), FAULT:segv, FAULT:exit, FAULT:garbage (bytes that are not a
frame), FAULT:flood (a hundred thousand lines on stderr, then the answer). Files arm the faults of the start.
"""

from __future__ import annotations

from pathlib import Path

from tests.harness import World, engine_python
from tests.hooked import hooked

_HOOK = """
import importlib.machinery, json, os, sys, time
DIR = @DIR@

def faulty(handle):
    def wrapped(self, request, *more, **most):
        text = json.dumps(request)
        if "FAULT:hang" in text:
            while True: time.sleep(600)
        if "FAULT:segv" in text:
            import ctypes; ctypes.string_at(0)
        if "FAULT:exit" in text:
            os._exit(9)
        if "FAULT:garbage" in text:
            fd = int(sys.argv_engine[sys.argv_engine.index("--wfd") + 1])
            os.write(fd, b"Traceback: this is no frame" * 400); time.sleep(600)
        if "FAULT:flood" in text:
            for n in range(100_000): sys.stderr.write("flood %d\\n" % n)
        if "FAULT:hold" in text:
            answer = handle(self, request, *more, **most)
            open(os.environ["TMPDIR"] + "/held", "w").close()  # the engine may write there, and not into DIR
            while not os.path.exists(DIR + "/released"): time.sleep(0.01)
            return answer
        return handle(self, request, *more, **most)
    return wrapped

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mempalace.mcp_server" and os.path.exists(DIR + "/slow-import"):
            open(DIR + "/importing", "w").close()
            time.sleep(60)
        if name == "mempalace.mcp_server" and os.path.exists(DIR + "/no-import"):
            raise ImportError("No module named 'chromadb'")
        if name != "mempalace_broker.engine.adapter":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.Mempalace.handle = faulty(module.Mempalace.handle)
        spec.loader.exec_module = exec_module
        return spec

if "mempalace_broker.engine.worker" in " ".join(sys.orig_argv):
    sys.argv_engine = list(sys.orig_argv)
    if os.path.exists(DIR + "/exit-at-start"):
        print("the engine was told to exit at once", file=sys.stderr, flush=True)
        os._exit(7)
    sys.meta_path.insert(0, Finder)
"""


class FaultyEngine:
    """A virtual environment on top of the real one, named by MEMPALACE_BROKER_ENGINE.

    `arm` and `disarm` take "slow-import", "no-import" or "exit-at-start".
    """

    def __init__(self, world: World) -> None:
        assert world.engine is not None
        self.folder = world.root / "faulty"
        self._temporary = Path(world.env["TMPDIR"])
        hook = _HOOK.replace("@DIR@", repr(str(self.folder)))
        world.env["MEMPALACE_BROKER_ENGINE"] = str(hooked(self.folder, engine_python(world.engine), hook))

    def arm(self, fault: str) -> None:
        (self.folder / fault).touch()

    def disarm(self, fault: str) -> None:
        (self.folder / fault).unlink()

    def release(self) -> None:
        """Let the held call answer."""
        (self.folder / "released").touch()

    @property
    def held(self) -> Path:
        """A file that exists once a held call has done its work."""
        return self._temporary / "held"
