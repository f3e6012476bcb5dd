"""Start a broker: its command line and its environment. Imported late."""

from __future__ import annotations

import sys

from ..errors import StartFailed
from ..system.spawn import spawn_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity
    from ..system.context import Context
    from ..system.paths import StateFiles
    from ..system.spawn import StartPipe


# What a daemon may inherit: the variables that find programs and files, and those that set up mempalace and its
# libraries. Never a client's secrets and session marks, nor variables that only its client should obey.
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
    """The part of its starter's environment that the daemon inherits: by list, so that it depends little on who
    started it.
    """
    return {
        name: value
        for name, value in env.items()
        if name not in _DROP and (name in _KEEP or name.startswith(_KEEP_PREFIXES))
    }


def start_broker(context: Context, *, started_by: str, direct: bool = False) -> StartPipe:
    """Spawn one. The caller holds start.lock and has dialled once more under it.

    Raises:
        StartFailed, StateRootError: nothing was started.
    """
    if not sys.executable:
        raise StartFailed("this program does not know its own interpreter.", hint="mempalace-broker run")
    argv = broker_argv(context.identity, context.files, started_by=started_by, direct=direct)
    log = "" if context.files.private.make() else context.files.log  # without a private folder there is no log
    return spawn_detached(argv, env=broker_env(context.env), cwd="/", log_path=log)
