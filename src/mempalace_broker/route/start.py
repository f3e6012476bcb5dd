"""Start a broker: its command line. Imported late."""

from __future__ import annotations

import sys

from ..errors import StartFailed
from ..system.environment import known_environment
from ..system.spawn import spawn_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.palace import PalaceIdentity
    from ..system.paths import Context, StateFiles
    from ..system.spawn import StartPipe


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
    argv += ["--palace", identity.path, "--name", identity.name, "--palace-by", identity.by, "--graph", identity.graph]
    if identity.backend:
        argv += ["--backend", identity.backend]
    if direct:
        argv.append("--direct")
    return [*argv, "--root", files.root, "--started-by", started_by]


def start_broker(context: Context, *, started_by: str, direct: bool = False) -> StartPipe:
    """Spawn one. The caller holds start.lock and has dialled once more under it.

    Raises:
        StartFailed, StateRootError: nothing was started.
    """
    if not sys.executable:
        raise StartFailed("this program does not know its own interpreter.", hint="mempalace-broker run")
    argv = broker_argv(context.identity, context.files, started_by=started_by, direct=direct)
    log = "" if context.files.private.make() else context.files.log  # without a private folder there is no log
    return spawn_detached(argv, env=known_environment(context.env), cwd="/", log_path=log)
