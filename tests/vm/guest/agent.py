"""The guest's end of the serial line: runs programs for the host, with their standard streams.

One JSON object a line. From the host: {"id", "start": argv, "env", "cwd"}, then for that id {"in": base64} (empty:
end of input) and {"signal": n}. To the host: {"hello": release}, then {"id", "out" | "err": base64} and at the end
{"id", "exit": status}, negative for a signal.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import queue
import signal
import subprocess
import threading
import time
from typing import IO, Any

PORT = "host.agent"
CHUNK = 1 << 16


def port() -> int:
    """A descriptor of the serial port; the driver may still be at work."""
    while True:
        for path in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(path) as file:
                if file.read().strip() == PORT:
                    return os.open("/dev/" + path.split("/")[-2], os.O_RDWR)
        time.sleep(0.02)  # the device appears without an event that a program without udev could wait for


class Line:
    """The serial line, for all threads."""

    def __init__(self) -> None:
        self.fd = port()
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """One message, whole."""
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self.fd, data) :]


class Program:
    """One program and the threads that carry its streams."""

    def __init__(self, line: Line, message: dict[str, Any]) -> None:
        self.id = message["id"]
        self._line = line
        self._input: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            message["start"],
            env=message["env"],
            cwd=message["cwd"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            self._thread(self._read, self.process.stdout, "out"),
            self._thread(self._read, self.process.stderr, "err"),
        ]
        self._thread(self._write)
        self._thread(self._wait)

    def _thread(self, target: Any, *args: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        return thread

    def _read(self, pipe: IO[bytes], name: str) -> None:
        while data := os.read(pipe.fileno(), CHUNK):
            self._line.send(id=self.id, **{name: base64.b64encode(data).decode()})

    def _write(self) -> None:
        assert self.process.stdin is not None
        try:
            while data := self._input.get():
                self.process.stdin.write(data)
                self.process.stdin.flush()
            self.process.stdin.close()
        except BrokenPipeError:
            return  # it no longer reads

    def _wait(self) -> None:
        status = self.process.wait()
        for reader in self._readers:
            reader.join(2)  # a program of its own that it left behind may keep the pipe open
        self._line.send(id=self.id, exit=status)

    def take(self, data: bytes) -> None:
        """Bytes for its standard input; none: the end of it."""
        self._input.put(data)


def start(line: Line, programs: dict[int, Program], message: dict[str, Any]) -> None:
    """Start a program; one that can't be started ends with 127, as a shell would say."""
    try:
        programs[message["id"]] = Program(line, message)
    except OSError as exc:
        line.send(id=message["id"], err=base64.b64encode(f"{exc}\n".encode()).decode())
        line.send(id=message["id"], exit=127)


def handle(line: Line, programs: dict[int, Program], message: dict[str, Any]) -> None:
    """One message of the host."""
    if "start" in message:
        start(line, programs, message)
    elif program := programs.get(message["id"]):
        if "in" in message:
            program.take(base64.b64decode(message["in"]))
        elif program.process.poll() is None:
            program.process.send_signal(message["signal"])


def main() -> None:
    """Serve until the machine ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = Line()
    programs: dict[int, Program] = {}
    line.send(hello=os.uname().release)
    buffer = b""
    while True:
        data = os.read(line.fd, CHUNK)
        if not data:
            time.sleep(0.05)  # nobody at the host's end: the driver reports that by reads of nothing
            continue
        *whole, buffer = (buffer + data).split(b"\n")
        for each in whole:
            handle(line, programs, json.loads(each))


if __name__ == "__main__":
    main()
