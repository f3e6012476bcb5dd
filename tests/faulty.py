"""The real engine with a fault inside: an interpreter of its own that misbehaves when a call contains a trigger.

Triggers stand anywhere in a tools/call's arguments: FAULT:hang (never answers), FAULT:linger (answers after 2.5 s,
whatever happens to the broker), FAULT:segv, FAULT:exit, FAULT:garbage (bytes that are no frame), FAULT:flood
(a hundred thousand lines on stderr, then the answer). A start-up fault is armed by a file beside the interpreter.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness import World, engine_python

_PRELUDE = """
import os, sys, json, time
_dir = {dir!r}
if os.path.exists(_dir + "/exit-at-start"):
    print("the engine was told to exit at once", file=sys.stderr)
    os._exit(7)
if os.path.exists(_dir + "/hang-at-start"):
    time.sleep(600)
"""
_PATCH = """
from mempalace_broker.engine import adapter as _adapter
_handle = _adapter.Mempalace.handle
def _faulty(self, request, *more, **most):
    text = json.dumps(request)
    if "FAULT:hang" in text:
        while True: time.sleep(600)
    if "FAULT:segv" in text:
        import ctypes; ctypes.string_at(0)
    if "FAULT:exit" in text:
        os._exit(9)
    if "FAULT:garbage" in text:
        fd = int(sys.argv[sys.argv.index("--wfd") + 1]); os.write(fd, b"Traceback: this is no frame" * 400); time.sleep(600)
    if "FAULT:flood" in text:
        for n in range(100_000): sys.stderr.write("flood %d\\n" % n)
    if "FAULT:linger" in text:
        open(_dir + "/lingering", "w").close()
        end = time.monotonic() + 2.5
        answer = _handle(self, request, *more, **most)
        while time.monotonic() < end: time.sleep(0.05)
        return answer
    return _handle(self, request, *more, **most)
_adapter.Mempalace.handle = _faulty
main("""


class FaultyEngine:
    """An interpreter path for MEMPALACE_BROKER_ENGINE; `arm` and `disarm` faults of its start."""

    def __init__(self, world: World) -> None:
        assert world.engine is not None
        self.folder = world.root / "faulty"
        self.folder.mkdir()
        self.python = self.folder / "python"
        real = str(engine_python(world.engine))
        self.python.write_text(
            f"#!{sys.executable} -I\n"
            "import os, sys\n"
            f"real, patch, prelude = {real!r}, {_PATCH!r}, {_PRELUDE.format(dir=str(self.folder))!r}\n"
            "args = sys.argv[1:]\n"
            'if len(args) > 1 and args[0] == "-c" and "engine.worker" in args[1]:\n'
            '    args[1] = prelude + args[1].replace("main(", patch, 1)\n'
            "os.execv(real, [real, *args])\n",
            encoding="utf-8",
        )
        self.python.chmod(0o755)
        world.env["MEMPALACE_BROKER_ENGINE"] = str(self.python)

    def arm(self, fault: str) -> None:
        (self.folder / fault).touch()

    def disarm(self, fault: str) -> None:
        (self.folder / fault).unlink()

    @property
    def lingering(self) -> Path:
        return self.folder / "lingering"
