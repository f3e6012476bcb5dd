"""The kernel that we run on: which system it is, which boot of it, and what Linux and macOS do differently.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os
import sys

from ..protocol.palace import FileView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.palace import PalaceIdentity

# Plain booleans, not comparisons with sys.platform: so a type checker for one system checks the code for both.
MACOS = bool(sys.platform == "darwin")
LINUX = bool(sys.platform.startswith("linux"))

# What a socket certainly takes that poll calls writable; of use on macOS alone, see darwin. XNU's MCLBYTES.
SOCKET_ROOM = 2048

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_BOOT_ON_A_MAC = "kern.bootsessionuuid"
_ANSWERS: dict[str, str] = {}  # that cost a process on macOS and stay the same as long as this one lives


def boot_id() -> str:
    """A string that changes with every boot of this kernel, and differs between kernels; "" if not known."""
    if not MACOS:
        return read_small(_BOOT_ID)
    if not _ANSWERS.get(_BOOT_ON_A_MAC):
        from .darwin import sysctl

        _ANSWERS[_BOOT_ON_A_MAC] = sysctl(_BOOT_ON_A_MAC) or run("sysctl", "-n", _BOOT_ON_A_MAC)
    return _ANSWERS[_BOOT_ON_A_MAC]


def process_status(pid: int) -> tuple[str, str] | None:
    """(state letter, start token) of the process with that pid, None where the system tells nothing.

    On macOS, of another process than this one, that costs a process.
    """
    if MACOS:  # it has no /proc
        words = _ask_ps(pid).split(None, 1)
        return (words[0][0], words[1].strip()) if len(words) == 2 else None
    text = read_small(f"/proc/{pid}/stat")
    if not text:
        return None
    # the command in parentheses may hold spaces and parentheses itself: count from the last one
    fields = text[text.rfind(")") + 2 :].split()
    return (fields[0], fields[19]) if len(fields) >= 20 else ("?", "")


def _ask_ps(pid: int) -> str:
    if pid != os.getpid():
        return run("ps", "-o", "stat=,lstart=", "-p", str(pid))
    key = f"ps {pid}"  # a fork has another pid, and another start token
    if not _ANSWERS.get(key):
        _ANSWERS[key] = run("ps", "-o", "stat=,lstart=", "-p", str(pid))
    return _ANSWERS[key]


def is_free(pid: int) -> bool:
    """Whether certainly no process has that pid; /proc may hide those of other users."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter: no pid is so large
        return True
    except OSError:
        return False
    return False


def drop_cached_pages(fd: int) -> None:
    """Make the next read of a file see what another kernel wrote. macOS can't; there we are the host, with the disk."""
    advice = getattr(os, "POSIX_FADV_DONTNEED", None)
    if hasattr(os, "posix_fadvise") and advice is not None:
        os.posix_fadvise(fd, 0, 0, advice)


def sync_data(fd: int) -> None:
    """Flush a file's content to the disk: fdatasync, or fsync on macOS, which lacks it."""
    os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)


def sync_volume(folder: str) -> None:
    """Have all that was written to the volume of a folder on the medium itself. Raises OSError."""
    if MACOS:
        from . import darwin

        darwin.sync_volume(folder)
        return
    import ctypes

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), folder)
    finally:
        os.close(fd)


def widen_pipe(fd: int, size: int) -> None:
    """Give a pipe a buffer of `size` bytes where the system can; over the user's quota the default size has to do."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):  # only on Linux
        try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            pass


def read_small(path: str) -> str:
    """Read a small file of /proc, without the white space around its content; "" on any failure."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


def run(*argv: str) -> str:
    """Run one short command of the system and return its output; "" on any failure."""
    import subprocess

    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=5,
            check=False,
            # UTC: on macOS a start token is a local time, which must not change when its user travels
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC0"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def view_of(identity: PalaceIdentity, *, remote: bool = False, named: bool = False) -> FileView:
    """How this process sees files, and the folders of a palace among them.

    Args:
        remote: the broker is reached over ssh or TCP, where none of these facts can be compared. named: by the user.
    """
    if remote:
        return FileView("elsewhere", named=named)
    try:
        info = os.stat(identity.path)
    except OSError:
        dev = ino = 0
    else:
        dev, ino = info.st_dev, info.st_ino
    graph, beside = (file_id(os.path.dirname(path)) for path in (identity.graph, identity.name))
    # macOS has one mount table for all, and asking for the boot would cost a process
    boot, mnt = ("", "") if MACOS else (boot_id(), _mount_namespace())
    return FileView(boot, mnt, dev, ino, graph=graph, beside=beside)


def real_path(path: str) -> str:
    """`os.path.realpath`; on macOS, where case and Unicode form of a name don't matter, as the folder spells it."""
    real = os.path.realpath(path)
    if not MACOS:
        return real
    from .darwin import true_path

    return true_path(real)


def file_id(file: int | str) -> str:
    """A file or folder (descriptor or path) as this kernel names it, "dev:ino"; "" where there is none."""
    try:
        info = os.stat(file)
    except OSError:
        return ""
    return f"{info.st_dev}:{info.st_ino}"


def _mount_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""
