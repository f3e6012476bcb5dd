"""Runs a real engine child in tests: starts it, exchanges frames with it, cleans up after it."""

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


class EngineProcess:
    """A running engine child.

    Args:
        which: "3.4.0" or "newest".
        palace: the palace directory.
        home: its HOME.
        by: how the palace was chosen.
        journal: path of the journal, or None.
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
        power_safe: bool = False,
        env: dict[str, str] | None = None,
        interpreter: str | None = None,
        cwd: Path | str = "/",
    ) -> None:
        self.hello: dict[str, Any] = {}
        self.ready: dict[str, Any] = {}
        identity = PalaceIdentity(str(palace), str(palace / "knowledge_graph.sqlite3"), by)
        engine_reads, self._to_engine = os.pipe()
        self._from_engine, engine_writes = os.pipe()
        argv = engine_argv(
            str(interpreter or engine_python(which)),
            identity,
            rfd=engine_reads,
            wfd=engine_writes,
            journal=str(journal) if journal else None,
            tune=tune,
            power_safe=power_safe,
        )
        self._stderr = (home / f"engine-{time.monotonic_ns()}.log").open("w+b")
        self.process = subprocess.Popen(
            argv,
            env=engine_env(clean_env(home, **(env or {})), identity, {}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=(engine_reads, engine_writes),
        )
        os.close(engine_reads)
        os.close(engine_writes)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._from_engine, selectors.EVENT_READ)
        self._n = 0

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def stderr(self) -> str:
        """The engine's stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")

    @property
    def to_engine_fd(self) -> int:
        """Descriptor of the broker's writing end."""
        return self._to_engine

    # -- frames ----------------------------------------------------------------------------------

    def send(self, *frames: Frame) -> None:
        """Send frames, up to 64 KiB of them at once."""
        view = memoryview(b"".join(frame.encode() for frame in frames))
        while view:
            view = view[os.write(self._to_engine, view) :]

    def next_frame(self, patience: float = PATIENCE_S) -> Frame | None:
        """The next frame, None at end of file."""
        deadline = time.monotonic() + patience
        while not self._frames:
            left = deadline - time.monotonic()
            assert left > 0, f"no frame within {patience} s; stderr:\n{self.stderr()[-4000:]}"
            if not self._selector.select(left):
                continue
            data = os.read(self._from_engine, 1 << 20)
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
        """Send calls (line, lane, key) in one write, so that the last arrives before the first ends."""
        numbers = list(range(self._n + 1, self._n + 1 + len(calls)))
        self._n += len(calls)
        self.send(*(Frame("call", n, lane, key, line) for n, (line, lane, key) in zip(numbers, calls, strict=True)))
        return numbers

    def roundtrip(self, line: bytes, *, lane: str = "palace", key: str = "-") -> Frame:
        """Send a call and return its `done` frame."""
        n = self.post(line, lane=lane, key=key)
        while True:
            frame = self.next_frame()
            assert frame is not None, f"the engine ended; stderr:\n{self.stderr()[-4000:]}"
            if frame.verb == "done" and frame.n == n:
                return frame

    def tool(self, name: str, arguments: dict[str, Any] | None = None, **kw: str) -> Any:
        """Call a tool; return its result, parsed from the text content, or the response if it is an error."""
        params = {"name": f"mempalace_{name}", "arguments": arguments or {}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        response = json.loads(self.roundtrip(json.dumps(request).encode(), **kw).payload)
        if "error" in response:
            return response
        return json.loads(response["result"]["content"][0]["text"])

    # -- the end ---------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Close the broker's writing end: end of file for the engine."""
        if self._to_engine >= 0:
            os.close(self._to_engine)
            self._to_engine = -1

    def leave(self, patience: float = 20.0) -> int:
        """Hang up and wait for the engine to end; return its exit code."""
        self.hang_up()
        return self.process.wait(patience)

    def kill(self) -> None:
        """Send SIGKILL, reap, close everything."""
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._selector.close()
        if self._from_engine >= 0:
            os.close(self._from_engine)
            self._from_engine = -1
        self._stderr.close()
