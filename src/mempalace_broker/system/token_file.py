"""The token that opens a broker's TCP listener, in a file of the state root that only its owner can read.

It outlives brokers, so that clients on other machines need a copy only once.
`mp-shim` imports this module where it uses TCP.
"""

from __future__ import annotations

import os
import stat

from ..errors import StateRootError, UsageError, file_hint
from ..protocol.tcp_auth import TOKEN_BYTES, is_token
from .shared_files import replace_file, unlink_quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .private import PrivateFile

FILE = "broker-token"
HTTP_FILE = "http-token"  # in the private folder
METRICS_FILE = "metrics-token"  # there, too
VARIABLE = "MEMPALACE_BROKER_TOKEN_FILE"
_LIMIT = 256
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO under that name must not hang us


def token_path(root: str) -> str:
    """Return the path of the token's file in a state root."""
    return os.path.join(root, FILE)


def read_token(path: str, *, given: bool = False) -> str | None:
    """Return the token in a file, None if there is no such file.

    Args:
        given: the user named this file. It may be a link, and it may be root's and readable by all, as container
            engines mount their secrets; our own file may be neither.

    Raises:
        UsageError: others can read or change it, it is not ours, or it holds no token. The message never quotes it.
    """
    try:
        fd = os.open(path, _READ | (0 if given else os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise UsageError(f"cannot read the token in {path}: {exc.strerror or exc}.", hint=f"ls -l {path}") from exc
    try:
        _check(path, os.fstat(fd), given)
        text = os.read(fd, _LIMIT).decode("ascii", "replace").strip()
    except OSError as exc:
        raise UsageError(f"cannot read the token in {path}: {exc.strerror or exc}.", hint=f"ls -l {path}") from exc
    finally:
        os.close(fd)
    if not is_token(text):
        raise UsageError(
            f"{path} holds no token (64 hex digits).",
            hint=f"put there what `mempalace-broker token` prints on the broker's machine, or remove {path}",
        )
    return text


def _check(path: str, info: os.stat_result, given: bool) -> None:
    """Raise UsageError where another user could have read or made it."""
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"{path} holds no token: it is not a regular file.", hint=f"remove {path}")
    secret_of_root = given and info.st_uid == 0 and not info.st_mode & 0o022
    if info.st_mode & 0o077 and not secret_of_root:
        raise UsageError(
            f"others can read or change the token in {path} (mode {info.st_mode & 0o777:o}).",
            hint=f"chmod 600 {path}, and `mempalace-broker token --new` if others may have seen it",
        )
    if info.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise UsageError(
            f"the token in {path} belongs to another user (uid {info.st_uid}).", hint=f"remove {path}, or chown it"
        )


def ensure_token(root: str) -> str:
    """Return the state root's token; make it if there is none yet.

    Raises:
        UsageError: as `read_token`. StateRootError: it can't be written.
    """
    path = token_path(root)
    found = read_token(path)
    if found is not None:
        return found
    temp = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        replace_file(temp, _fresh())
        try:
            os.link(temp, path)  # unlike a rename, it never replaces a token that another process has just made
        except FileExistsError:
            pass
        except OSError:  # a filesystem without hard links
            os.rename(temp, path)
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    finally:
        unlink_quietly(temp)
    made = read_token(path)
    if made is None:
        raise UsageError(f"{path} was removed while it was being made.", hint="try again")
    return made


def replace_token(root: str) -> str:
    """Put a new token in place of the old one and return it.

    Raises:
        StateRootError: it can't be written; the old one stands.
    """
    path = token_path(root)
    fresh = _fresh()
    try:
        replace_file(path, fresh)
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    return fresh.decode().strip()


def private_token(file: PrivateFile, *, new: bool = False, make: bool = True) -> str:
    """The token in a file of the user's private folder; a new one where there is none (or "", unless `make`), or where
    it is asked for.

    Raises:
        OSError: it can't be read, written or trusted.
    """
    text = b"" if new else file.read(_LIMIT) or b""
    token = text.decode("ascii", "replace").strip()
    if not is_token(token) and not make:
        return ""
    if not is_token(token):
        fresh = _fresh()
        file.write(fresh)
        token = fresh.decode().strip()
    return token


def restore_token(root: str, token: str) -> None:
    """Write a known token again, where its file was removed. Raises OSError as the system reports it."""
    replace_file(token_path(root), token.encode() + b"\n")


def _fresh() -> bytes:
    """256 bits of the system's randomness: what `secrets.token_hex` gives, without its imports."""
    return os.urandom(TOKEN_BYTES).hex().encode() + b"\n"


def _unwritable(path: str, exc: OSError) -> StateRootError:
    return StateRootError(f"cannot write {path}: {exc.strerror or exc}.", hint=file_hint(exc))
