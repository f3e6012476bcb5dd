"""A real second kernel: a virtual machine with this machine's own / (read only) and shared folders in it.

    with Machine([Share(folder, "/mnt/share")]) as machine:
        machine.run(["uname", "-r"])                            # CompletedProcess
        world.spawn(machine.argv(["mp-shim"]))                  # a process with stdio, driven from here

qemu without hardware acceleration (slow: an interpreter takes 0.2 s to start), virtiofsd for every share. The same
interpreters and environments as here, another kernel: locks, sockets and process ids do not cross. The guest reaches
nothing but the doors that it is given: 10.0.2.100:PORT inside -> a TCP port here.

Needs root, qemu, virtiofsd, socat, and what tests/vm/build.py makes in .dev/vm.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.netbox import HOME, PATH
from tests.proctools import eventually, state_of

REPO = Path(__file__).resolve().parent.parent.parent
BUILT = REPO / ".dev" / "vm"
ATTACH = Path(__file__).resolve().parent / "attach.py"
HOST = "10.0.2.100"  # where the guest finds its doors
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "socat": "socat"}
BOOT_S = 120.0
CHUNK = 1 << 16


def lacking() -> str:
    """Why there can be no machine here; empty when there can."""
    if os.geteuid() != 0:
        return "a guest that sees this machine's files needs root"
    if os.uname().machine != "x86_64" or os.uname().sysname != "Linux":
        return "the guest is built for Linux on x86_64"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    missing += [] if _virtiofsd() else ["qemu-system-common"]
    if missing:
        return f"no {', '.join(missing)}; run `python3 dev.py vm`"
    if not (BUILT / "initrd").exists():
        return f"no kernel in {BUILT}; run `python3 dev.py vm`"
    return ""


def _virtiofsd() -> str:
    return next((path for path in VIRTIOFSD if os.path.exists(path)), "")


class Share:
    """A folder here and where the guest finds it. `options` are virtiofsd's: cache=none|auto|always, ..."""

    def __init__(self, here: Path, inside: str, **options: str) -> None:
        self.here = here
        self.inside = inside
        self.options = {"cache": "auto", **options}


class Program:
    """One program in the guest, as seen from here; `ended` makes its starter go."""

    def __init__(self, connection: socket.socket, fds: list[int]) -> None:
        self.connection = connection
        self.stdin, self.stdout, self.stderr = fds

    def write(self, fd: int, data: bytes) -> None:
        """Bytes to its starter, which may be gone."""
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(fd, data) :]

    def ended(self, status: int) -> None:
        """Close its streams, then let its starter go: whoever waits for that finds them complete."""
        for fd in (self.stdout, self.stderr):
            os.close(fd)
        with contextlib.suppress(OSError):  # killed: nobody asks any more
            self.connection.sendall(str(status).encode())
            self.connection.shutdown(socket.SHUT_RDWR)


class Line:
    """The serial line to the guest's agent, and the socket where attach.py asks for it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "attach.sock")
        self.release = ""
        self._agent = socket.socket(socket.AF_UNIX)
        eventually(lambda: self._agent.connect_ex(str(folder / "agent.sock")) == 0, what="the line to the guest")
        self._lock = threading.Lock()
        self._programs: dict[int, Program] = {}
        self._last = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._accept)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """After the guest has ended."""
        for sock in (self._agent, self._listener):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in (self._agent, self._listener):
            sock.close()

    def _send(self, **message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):  # a guest that ended: its programs are told so by `_read`
            self._agent.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := self._agent.recv(CHUNK):
                *whole, buffer = (buffer + data).split(b"\n")
                for each in whole:
                    self._take(json.loads(each))
        for number in list(self._programs):
            self._programs.pop(number).ended(-signal.SIGKILL)

    def _take(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            self.release = message["hello"]
        elif "exit" in message:
            self._programs.pop(message["id"]).ended(message["exit"])
        else:
            program = self._programs[message["id"]]
            name = "out" if "out" in message else "err"
            program.write(program.stdout if name == "out" else program.stderr, base64.b64decode(message[name]))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request, fds, _, _ = socket.recv_fds(connection, CHUNK, 3)
            program = Program(connection, fds)
            with self._lock:
                self._last += 1
                number = self._last
                self._programs[number] = program
            self._send(id=number, **json.loads(request))
            self._feed(number, program)

    def _feed(self, number: int, program: Program) -> None:
        """Its standard input, until it or its starter ends."""
        sources: list[Any] = [program.connection, program.stdin]
        try:
            while True:
                ready, _, _ = select.select(sources, [], [])
                if program.connection in ready:
                    break
                data = os.read(program.stdin, CHUNK)
                self._send(id=number, **{"in": base64.b64encode(data).decode()})
                if not data:
                    sources.remove(program.stdin)
        finally:
            os.close(program.stdin)
        if number in self._programs:  # its starter was killed
            self._send(id=number, signal=int(signal.SIGKILL))


class Machine:
    """One guest; a context manager.

    Args:
        shares: folders of this machine to be seen in it. doors: port inside -> TCP port here, on 127.0.0.1.
        hide: folders of this machine that it must not see. memory_mb: its memory, also for what it writes to its /.

    Attributes:
        release: of its kernel. folder: its logs here, while it runs. qemu: the process.
    """

    def __init__(
        self,
        shares: Sequence[Share] = (),
        *,
        name: str = "guest",
        doors: Mapping[int, int] | None = None,
        hide: Sequence[Path] = (),
        memory_mb: int = 1024,
    ) -> None:
        self.name = name
        self.home = HOME
        self.shares = list(shares)
        self._doors = dict(doors or {})
        self._hide = list(hide)
        self._memory_mb = memory_mb
        self._processes: list[subprocess.Popen[bytes]] = []
        self._line: Line | None = None
        self.folder = Path()

    # --- life

    def start(self) -> Self:
        """Boot it; AssertionError with its console where it does not come up."""
        self.folder = Path(tempfile.mkdtemp(prefix="mpbvm-", dir="/tmp"))
        try:
            devices: list[str] = []
            root = Share(Path("/"), "", cache="always")
            for number, share in enumerate([root, *self.shares]):
                devices += self._serve(share, "hostroot" if share is root else f"share{number}")
            self.qemu = self._spawn("qemu", [*self._argv(), *devices, "-append", self._kernel_words()])
            eventually((self.folder / "agent.sock").exists, what="the machine")
            self._line = line = Line(self.folder)
            eventually(lambda: line.release or self._check_alive(), BOOT_S, "the guest's agent")
        except BaseException as exc:
            logs = self.logs()
            self.stop()
            raise AssertionError(f"no guest: {exc}\n{logs}") from exc
        self.release = line.release
        return self

    def _check_alive(self) -> str:
        ended = [process for process in self._processes if process.poll() is not None]
        if ended:
            raise RuntimeError(f"{ended[0].args!r} ended with {ended[0].returncode}")
        return ""

    def _spawn(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, umask=0o77
            )
        self._processes.append(process)
        return process

    def _serve(self, share: Share, tag: str) -> list[str]:
        """Start the daemon of one share; the device that the guest sees."""
        sock = self.folder / f"{tag}.sock"
        options = {"source": str(share.here), "sandbox": "chroot", "log_level": "warn", **share.options}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}" if value else name)]
        self._spawn(tag, [_virtiofsd(), "-f", f"--socket-path={sock}", *words])
        eventually(lambda: sock.exists() or self._check_alive(), what=f"virtiofsd of {share.here}")
        return [
            *("-chardev", f"socket,id={tag},path={sock}"),
            *("-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"),
        ]

    def _argv(self) -> list[str]:
        memory = f"{self._memory_mb}M"
        network = "user,id=net,restrict=on,net=10.0.2.0/24,host=10.0.2.2"
        for inside, here in self._doors.items():
            network += f",guestfwd=tcp:{HOST}:{inside}-cmd:socat - TCP:127.0.0.1:{here}"
        return [
            *("qemu-system-x86_64", "-name", self.name, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", memory),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-object", f"memory-backend-memfd,id=mem,size={memory},share=on", "-numa", "node,memdev=mem"),
            *("-kernel", str(BUILT / "vmlinuz"), "-initrd", str(BUILT / "initrd")),
            *("-serial", f"file:{self.folder}/console.log", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={self.folder}/agent.sock,server=on,wait=off"),
            *("-device", "virtserialport,chardev=agent,name=host.agent"),
            *("-netdev", network, "-device", "virtio-net-pci,netdev=net"),
        ]

    def _kernel_words(self) -> str:
        words = ["console=ttyS0", "quiet", "loglevel=4", "panic=-1", "mitigations=off", "random.trust_cpu=on"]
        words += ["net.ifnames=0", f"guest.name={self.name}", f"guest.python={os.path.realpath(sys.executable)}"]
        words += [f"guest.hide={path}" for path in self._hide]
        words += [f"guest.share=share{number},{share.inside}" for number, share in enumerate(self.shares, 1)]
        return " ".join(words)

    def logs(self) -> str:
        """The end of the console and of all daemons' words."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.folder.glob("*.log"))
        )

    def stop(self) -> None:
        """End it at once, as a power cut would; nothing of it is left here."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait(20)
        if self._line is not None:
            self._line.close()
            self._line = None
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped; a frozen one runs."""
        return self._line is not None

    def pause(self) -> None:
        """Freeze the whole guest, as a closed lid does."""
        self.qemu.send_signal(signal.SIGSTOP)
        eventually(lambda: state_of(self.qemu.pid) == "T", what="the frozen guest")

    def resume(self) -> None:
        self.qemu.send_signal(signal.SIGCONT)

    # --- programs in it

    def argv(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "/") -> list[str]:
        """A command of this machine that runs `command` in the guest, with its stdio, until that ends.

        SIGKILL of what this starts also ends `command`; `env` is added to HOME, PATH, LANG and nothing else.
        """
        assert self._line is not None
        words = {"HOME": self.home, "PATH": PATH, "LANG": "C.UTF-8", "HOSTNAME": self.name, **(env or {})}
        request = json.dumps({"start": list(command), "env": words, "cwd": cwd})
        return [os.path.realpath(sys.executable), "-I", "-S", str(ATTACH), self._line.path, request]

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 60.0, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest to its end."""
        return subprocess.run(
            self.argv(command, env), text=True, capture_output=True, timeout=timeout, check=False, **more
        )
