"""Where new files of a palace lie ready until renames put them in their places.

A guest who can write beside the palace can swap a folder there for a link while files are written into it. So they lie
in the palace's private folder, where only the user can write. Only where renames can't lead from there to the palace,
or the user has no such folder, they lie beside the palace, under the same name behind the palace's own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from ..system.shared_files import SharedFolder, Untrusted
from .backup.snapshots import folder_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ..system.paths import Context

_PROBE = ".broker-probe"


@contextlib.contextmanager
def staging_folder(
    context: Context, prefix: str, name: str, places: Collection[str] = (), *, goes_on: bool = False
) -> Iterator[str]:
    """Make a folder for new files, the caller's to remove; what killed runs left in the private folder goes.

    Args:
        prefix: of the names of one command's folders. name: what follows. places: the folders other than the palace
            for which files are meant. goes_on: keep what this folder holds already.

    Raises:
        OSError: it can't be made, or nothing can be put into the palace or one of `places`.
    """
    private, palace, named = context.files.private, context.identity.path, prefix + name
    parent, beside = os.path.dirname(palace), f"{os.path.basename(palace)}.{named}"
    with _naming(parent), SharedFolder.open(parent) as folder:  # what is replaced will be kept there
        probe = f"{_PROBE}-{os.urandom(4).hex()}"
        folder.create(probe)
        folder.remove(probe)
    with contextlib.ExitStack() as stack:
        if not private.make():
            _clear(context, prefix, named if goes_on else "")
            stack.enter_context(folder_lock(private.path, fcntl.LOCK_SH))  # nobody clears meanwhile
        if _use_private(context, named, places):
            with contextlib.suppress(OSError), SharedFolder.open(parent) as folder:
                folder.remove_tree(beside)  # an earlier version's; guests may go on there
            yield private.folder(named).path
            return
        with SharedFolder.open(parent) as folder:
            if not goes_on:
                folder.remove_tree(beside)
            folder.folder(beside, make=True).close()
        yield os.path.join(parent, beside)


def _clear(context: Context, prefix: str, but: str) -> None:
    """Remove what killed runs have left, unless another run is at work or a list of renames needs it."""
    private = context.files.private.path
    with folder_lock(private, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        if alone and not os.path.lexists(context.files.restore.path):
            for entry in os.listdir(private):
                if entry.startswith(prefix) and entry != but:
                    shutil.rmtree(os.path.join(private, entry), ignore_errors=True)


def _use_private(context: Context, named: str, places: Collection[str]) -> bool:
    """Make the folder in the private one; whether renames lead from it to the places that the files are meant for.

    Only what no guest can bring about says no: else one could have the files put beside the palace. Raises OSError.
    """
    palace, private = context.identity.path, context.files.private.folder(named)
    target = palace if os.path.lexists(palace) else os.path.dirname(palace)  # where it will be made
    with SharedFolder.open(target) as folder:
        if os.fstat(folder.fd).st_uid != os.geteuid() or private.make():
            return False  # what root makes in its own folder would lock the palace's owner out
    try:
        for place in {target, *places}:
            with _naming(place):
                _try_rename(private.path, place)
    except OSError as exc:
        if exc.errno == errno.EXDEV:  # another filesystem, or another mount of the same one
            shutil.rmtree(private.path, ignore_errors=True)
            return False
        with contextlib.suppress(OSError):
            os.rmdir(private.path)  # unless a killed run's files are in it
        raise
    return True


@contextlib.contextmanager
def _naming(folder: str) -> Iterator[None]:
    """Let an error name the folder instead of a name in it."""
    try:
        yield
    except Untrusted:
        raise
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, folder) from exc


def _try_rename(source: str, place: str) -> None:
    with SharedFolder.open(source) as here, SharedFolder.open(place) as there:
        here.remove(_PROBE)  # of a run that was killed
        here.create(_PROBE)
        probe = f"{_PROBE}-{os.urandom(4).hex()}"
        try:
            here.rename(_PROBE, probe, into=there)
        finally:
            here.remove(_PROBE)
        there.remove(probe)
