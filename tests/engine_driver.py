"""Drives a real engine child in tests: starts it, speaks frames with it, leaves nothing behind."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from typing import Any

from mempalace_broker.broker.engine_launch import engine_argv, engine_env
from mempalace_broker.protocol.engine_frames import Frame, FrameDecoder
from mempalace_broker.protocol.palace import PalaceIdentity
from tests.harness import engine_python, model_home

_MODELS = ".cache/chroma/onnx_models"
PATIENCE_S = 60.0


def make_home(base: Path, *, model: bool = True) -> Path:
    """A private HOME below `base`, with the embedding model linked in."""
    home = base / "home"
    (home / ".cache/chroma").mkdir(parents=True)
    if model:
        (home / _MODELS).symlink_to(model_home() / _MODELS)
    return home


def clean_env(home: Path, **extra: str) -> dict[str, str]:
    """The environment of an engine or of a bare mempalace-mcp."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **extra}


class Command:
    """An engine command by its interpreter."""

    def __init__(self, interpreter: str) -> None:
        self.interpreter = interpreter


class EngineProcess:
    """A running engine child.

    Args:
        which: "3.4.0" or "newest". palace: the palace directory. home: its HOME.
        by: how the palace was chosen. journal: path of the journal, or None.
    """

    def __init__(
        self,
        which: str,
        palace: Path,
        home: Path,
        *,
        by: str = "flag",
        journal: Path | None = None,
        tune: bool = True,
        env: dict[str, str] | None = None,
        interpreter: str | None = None,
        cwd: Path | str = "/",
    ) -> None:
        self.hello: dict[str, Any] = {}
        self.ready: dict[str, Any] = {}
        identity = PalaceIdentity(str(palace), str(palace / "knowledge_graph.sqlite3"), by)
        down_r, self._down = os.pipe()
        self._up, up_w = os.pipe()
        command = Command(str(interpreter or engine_python(which)))
        argv = engine_argv(
            command, identity, rfd=down_r, wfd=up_w, journal=str(journal) if journal else None, tune=tune
        )
        self._stderr = (home / f"engine-{time.monotonic_ns()}.log").open("w+b")
        self.process = subprocess.Popen(
            argv,
            env=engine_env(clean_env(home, **(env or {})), identity),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=(down_r, up_w),
        )
        os.close(down_r)
        os.close(up_w)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._up, selectors.EVENT_READ)
        self._n = 0

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def stderr(self) -> str:
        """What the engine wrote to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")

    @property
    def down_fd(self) -> int:
        """The broker's writing end."""
        return self._down

    # -- frames ----------------------------------------------------------------------------------

    def send(self, *frames: Frame) -> None:
        """Send frames, up to 64 KiB of them at once."""
        view = memoryview(b"".join(frame.encode() for frame in frames))
        while view:
            view = view[os.write(self._down, view) :]

    def next_frame(self, patience: float = PATIENCE_S) -> Frame | None:
        """The next frame, None at end of file."""
        deadline = time.monotonic() + patience
        while not self._frames:
            left = deadline - time.monotonic()
            assert left > 0, f"no frame within {patience} s; stderr:\n{self.stderr()[-4000:]}"
            if not self._selector.select(left):
                continue
            data = os.read(self._up, 1 << 20)
            if not data:
                return None
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def expect(self, verb: str, patience: float = PATIENCE_S) -> Frame:
        """The next frame, which must be a `verb`."""
        frame = self.next_frame(patience)
        assert frame is not None, f"end of file instead of {verb}; stderr:\n{self.stderr()[-4000:]}"
        assert frame.verb == verb, f"{frame} instead of {verb}: {frame.payload[:500]!r}"
        return frame

    def start(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for hello and ready; return both payloads."""
        hello = json.loads(self.expect("hello").payload)
        return hello, json.loads(self.expect("ready").payload)

    # -- calls -----------------------------------------------------------------------------------

    def post(self, line: bytes, *, lane: str = "palace", key: str = "-") -> int:
        """Send a call; return its number."""
        (number,) = self.post_together((line, lane, key))
        return number

    def post_together(self, *calls: tuple[bytes, str, str]) -> list[int]:
        """Send calls (line, lane, key) in one write, so that the first does not end before the last is there."""
        numbers = list(range(self._n + 1, self._n + 1 + len(calls)))
        self._n += len(calls)
        self.send(*(Frame("call", n, lane, key, line) for n, (line, lane, key) in zip(numbers, calls, strict=True)))
        return numbers

    def roundtrip(self, line: bytes, *, lane: str = "palace", key: str = "-") -> Frame:
        """Send a call, wait for its done frame."""
        n = self.post(line, lane=lane, key=key)
        while True:
            frame = self.next_frame()
            assert frame is not None, f"the engine left; stderr:\n{self.stderr()[-4000:]}"
            if frame.verb == "done" and frame.n == n:
                return frame

    def tool(self, name: str, arguments: dict[str, Any] | None = None, **kw: str) -> Any:
        """Call a tool; return its result as parsed from the text content, or the error object."""
        params = {"name": f"mempalace_{name}", "arguments": arguments or {}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        response = json.loads(self.roundtrip(json.dumps(request).encode(), **kw).payload)
        if "error" in response:
            return response
        return json.loads(response["result"]["content"][0]["text"])

    # -- the end ---------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Close the broker's writing end: end of file for the engine."""
        if self._down >= 0:
            os.close(self._down)
            self._down = -1

    def leave(self, patience: float = 20.0) -> int:
        """Hang up and wait for the engine to leave; return its exit code."""
        self.hang_up()
        return self.process.wait(patience)

    def kill(self) -> None:
        """SIGKILL, reap, close everything."""
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._selector.close()
        if self._up >= 0:
            os.close(self._up)
            self._up = -1
        self._stderr.close()
