"""The engine as a child process: two pipes of frames, its stderr, and the lock that lives and dies with it.

The broker takes engine.lock, hands the descriptor to the child alone and closes its own copy: after a kill -9 of the
broker the orphan still holds it, and no second engine starts beside it.

asyncio's own subprocess does not fit. The process is started and killed in the thread of the lease (lease_keeper.py),
not on the loop. Its end counts once it is reaped and its last frames are read, whether or not a grandchild still holds
a pipe; asyncio reports either the exit without the last bytes, or nothing before all pipes are closed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING

from ..protocol.engine_frames import Frame, FrameDecoder, FrameError
from ..protocol.framing import WriteBuffer
from ..system.kernel import widen_pipe
from .engine_launch import engine_argv, engine_env

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from ..protocol.palace import PalaceIdentity
    from ..system.find_engine import EngineCommand
    from ..system.lock import FileLock

_PIPE_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 18
TAIL_LINES = 50
_LINE_CHARS = 500
_BURST_LINES = 200  # of stderr per interval; a flood is counted, not kept
_BURST_S = 10.0


class EngineProcess:
    """One generation of the engine: `spawn` it in any thread, then `watch` it on the loop, which gets the callbacks.

    Args:
        on_frames: gets frames, as they come.
        on_garbled: gets what is wrong when the pipe carries something else.
        on_exit: gets the exit status in words, once the process is reaped and its last frames were delivered.
        on_log: gets a line of its stderr, or about it.

    Attributes:
        tail: the last lines of its stderr.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_frames: Callable[[list[Frame]], None],
        on_garbled: Callable[[str], None],
        on_exit: Callable[[str], None],
        on_log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._on_frames = on_frames
        self._on_garbled = on_garbled
        self._on_exit = on_exit
        self._on_log = on_log
        self._decoder = FrameDecoder()
        self._out = WriteBuffer()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))  # to allocate as much for each read costs 12 us
        self._writing = False
        self._read_fd = self._write_fd = self._err_fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._err_part = b""
        self._burst_until = 0.0
        self._burst = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def pid(self) -> int:
        """Its process id, 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def spawn(
        self,
        command: EngineCommand,
        identity: PalaceIdentity,
        lock: FileLock,
        *,
        env: Mapping[str, str],
        own: Mapping[str, str],
        journal: str,
        tune: bool,
        power_safe: bool,
    ) -> None:
        """Start the process. `lock` is engine.lock, held; the child inherits it. `own`: variables for the engine alone.

        Raises:
            OSError: the interpreter can't be run.
        """
        theirs: list[int] = []
        try:
            to_engine, from_engine, err = self._pipes(theirs)
            argv = engine_argv(
                command.interpreter,
                identity,
                rfd=to_engine,
                wfd=from_engine,
                journal=journal,
                tune=tune,
                power_safe=power_safe,
            )
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
                cwd="/",
                env=engine_env(env, identity, own),
                pass_fds=(to_engine, from_engine, lock.fd),
                start_new_session=True,
            )
        except OSError:
            self._close_all()
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def _pipes(self, theirs: list[int]) -> tuple[int, int, int]:
        """Make three pipes: return the child's ends, add them to `theirs`, and keep ours."""
        to_engine, self._write_fd = os.pipe()
        theirs.append(to_engine)
        self._read_fd, from_engine = os.pipe()
        theirs.append(from_engine)
        self._err_fd, err = os.pipe()
        theirs.append(err)
        return to_engine, from_engine, err

    def watch(self) -> None:
        """Read what it sends, and wait for its end."""
        for fd in (self._read_fd, self._write_fd, self._err_fd):
            os.set_blocking(fd, False)
            widen_pipe(fd, _PIPE_BYTES)
        self._loop.add_reader(self._read_fd, self._readable)
        self._loop.add_reader(self._err_fd, self._err_readable)
        process = self._process
        assert process is not None

        def reap() -> None:
            code = process.wait()
            self._loop.call_soon_threadsafe(self._exited, code)

        threading.Thread(target=reap, name=f"reap-{process.pid}", daemon=True).start()

    # -- frames

    def send(self, data: bytes) -> None:
        """Send one frame's bytes."""
        if self._write_fd < 0:
            return
        self._out.put(data)
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        """Write no more than the pipe holds: an engine that reads fast would keep the loop for a whole long frame."""
        try:
            self._out.advance(os.write(self._write_fd, memoryview(self._out.head())[:_PIPE_BYTES]))
        except BlockingIOError:
            pass
        except OSError:  # it is dying: `on_exit` follows
            self._out.clear()
        if bool(self._out.size) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._write_fd, self._flush)
            else:
                self._loop.remove_writer(self._write_fd)

    def _readable(self) -> None:
        try:
            data = self._read()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._read_fd)
            return
        self._decode(data)

    def _read(self) -> bytes:
        return bytes(self._buffer[: os.readv(self._read_fd, (self._buffer,))])

    def _decode(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except FrameError as exc:
            self._loop.remove_reader(self._read_fd)
            self._on_garbled(str(exc))
            return
        if frames:
            self._on_frames(frames)

    # -- stderr

    def _err_readable(self) -> None:
        try:
            data = os.read(self._err_fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._err_fd)
            return
        lines = (self._err_part + data).split(b"\n")
        self._err_part = lines.pop()[-_LINE_CHARS:]
        for line in lines:
            self._err_line(line.decode("utf-8", "replace").rstrip()[:_LINE_CHARS])

    def _err_line(self, text: str) -> None:
        if not text:
            return
        self.tail.append(text)
        now = self._loop.time()
        if now >= self._burst_until:
            if self._burst > _BURST_LINES:
                self._on_log(f"({self._burst - _BURST_LINES} more lines of the engine's stderr were not kept)")
            self._burst, self._burst_until = 0, now + _BURST_S
        self._burst += 1
        if self._burst <= _BURST_LINES:
            self._on_log(text)

    # -- the end

    def signal(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill_now(self, seconds: float) -> bool:
        """SIGKILL it and block until it is reaped; False if that takes longer. For any thread; `on_exit` follows."""
        if self._process is None:
            return True
        self._process.kill()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close_input(self) -> None:
        """Close its input: it finishes the running calls and leaves."""
        if self._write_fd >= 0:
            if self._writing:
                self._loop.remove_writer(self._write_fd)
                self._writing = False
            os.close(self._write_fd)
            self._write_fd = -1

    def _exited(self, code: int) -> None:
        self._drain_frames()
        self._err_readable()
        self._close_all()
        self._on_exit(how(code))

    def _drain_frames(self) -> None:
        while True:
            try:
                data = self._read()
            except OSError:
                return
            if not data:
                return
            self._decode(data)

    def _close_all(self) -> None:
        self.close_input()
        for name in ("_read_fd", "_err_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                self._loop.remove_reader(fd)
                os.close(fd)
                setattr(self, name, -1)


def how(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
