"""Start a broker: its command line, its environment, and what was learned when it failed. Imported late."""

from __future__ import annotations

import os
import sys

from ..errors import StartFailed
from ..system.lock_notes import StartNote
from ..system.spawn import spawn_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..protocol.palace import PalaceIdentity
    from ..system.clock import Clock
    from ..system.lock import FileLock
    from ..system.paths import StateFiles
    from ..system.spawn import StartPipe

FAILURE_COUNTS_S = 3.0  # how long those who waited for the same start take its failure for theirs

# What a daemon may inherit: what finds programs and files, what mempalace and its libraries are set up with.
# Not a client's secrets and session marks; nor what only its client should obey.
_KEEP = frozenset(
    """HOME PATH USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TERM VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONWARNINGS
    PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONFAULTHANDLER LD_LIBRARY_PATH LD_PRELOAD DYLD_LIBRARY_PATH
    DYLD_FALLBACK_LIBRARY_PATH NIX_LD NIX_LD_LIBRARY_PATH HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy
    https_proxy no_proxy all_proxy SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    TOKENIZERS_PARALLELISM""".split()  # noqa: SIM905 - words
)
_KEEP_PREFIXES = tuple(
    "MEMPALACE_ MEMPAL_ LC_ XDG_ HF_ CHROMA_ ORT_ ONNX OMP_ MKL_ OPENBLAS_ CUDA_ COVERAGE_ PG".split()  # noqa: SIM905 - words
)
_DROP = frozenset(("MEMPALACE_BROKER", "MEMPALACE_BROKER_NO_SPAWN"))


def broker_argv(
    identity: PalaceIdentity,
    files: StateFiles,
    *,
    started_by: str,
    executable: str | None = None,
    direct: bool = False,
) -> list[str]:
    """The daemon's command line, `--start-fd N` still to come. `executable`: the interpreter, ours by
    default. `direct`: it opens a palace that belongs to another kernel.
    """
    argv = [executable or sys.executable, "-P", "-m", "mempalace_broker.broker"]
    argv += ["--palace", identity.path, "--palace-by", identity.by, "--graph", identity.graph]
    if identity.backend:
        argv += ["--backend", identity.backend]
    if identity.collection:
        argv += ["--collection", identity.collection]
    if direct:
        argv.append("--direct")
    return [*argv, "--root", files.root, "--started-by", started_by]


def broker_env(env: Mapping[str, str]) -> dict[str, str]:
    """What the daemon inherits of its starter's environment: by list, so that it depends little on who
    started it.
    """
    return {
        name: value
        for name, value in env.items()
        if name not in _DROP and (name in _KEEP or name.startswith(_KEEP_PREFIXES))
    }


def start_broker(
    identity: PalaceIdentity, files: StateFiles, env: Mapping[str, str], *, started_by: str, direct: bool = False
) -> StartPipe:
    """Spawn one. The caller holds start.lock and has dialled once more under it.

    Raises:
        StartFailed, StateRootError: nothing was started.
    """
    if not sys.executable:
        raise StartFailed("this program does not know its own interpreter.", hint="mempalace-broker run")
    argv = broker_argv(identity, files, started_by=started_by, direct=direct)
    return spawn_detached(argv, env=broker_env(env), cwd="/", log_path=files.log)


def note_starter(lock: FileLock, clock: Clock) -> None:
    """Say in start.lock who is starting."""
    StartNote(os.getpid(), clock.wall()).write(lock)


def note_failure(lock: FileLock, clock: Clock, error: StartFailed) -> None:
    """Say in start.lock why the start failed, for those who waited for it."""
    StartNote(os.getpid(), clock.wall(), error.message, error.hint).write(lock)


def recent_failure(path: str, clock: Clock) -> StartFailed | None:
    """The failure that somebody noted in the start.lock at `path` a moment ago.

    Without it a hundred clients of a broker that can't start would start it a hundred times.
    """
    note = StartNote.read(path)
    if not note.failed or not 0 <= clock.wall() - note.at < FAILURE_COUNTS_S:
        return None
    return StartFailed(note.failed, hint=note.hint)


def failure_of(report: Mapping[str, Any], log_path: str) -> StartFailed:
    """The daemon's own "failed" report as an error that names its log."""
    reason = str(report.get("reason") or "it did not say why")
    hint = str(report.get("hint") or "")
    return StartFailed(
        f"the broker could not start: {reason}" + ("" if log_path in reason else f" (log: {log_path})"),
        hint=hint,
    )
