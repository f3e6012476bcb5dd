"""The command line and the environment of the engine process.

The interpreter is the user's, so our package is loaded by its path: nothing is put on the child's sys.path, and
nothing of ours shadows a module that mempalace imports.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity


# -c puts the working directory first on sys.path; mempalace must not be imported from there.
BOOTSTRAP = """\
import sys, importlib.util as u
sys.path[:] = [p for p in sys.path if p]
root = sys.argv.pop(1)
s = u.spec_from_file_location("mempalace_broker", root + "/__init__.py", submodule_search_locations=[root])
m = u.module_from_spec(s)
sys.modules[s.name] = m
s.loader.exec_module(m)
from mempalace_broker.engine.worker import main
main(sys.argv[1:])
"""

# variables of the broker that would lead the child's interpreter or its imports astray
_NOT_INHERITED = ("PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV")


def package_root() -> str:
    """The directory of the mempalace_broker package."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def engine_argv(
    interpreter: str,
    identity: PalaceIdentity,
    *,
    rfd: int,
    wfd: int,
    journal: str | None,
    tune: bool,
    power_safe: bool = False,
) -> list[str]:
    """The command that starts an engine.

    Args:
        interpreter: Python that has mempalace.
        identity: the palace and how it was chosen.
        rfd, wfd: the child's ends of the two pipes, to be passed with pass_fds.
        journal: path of the journal of writes, or None.
        tune: apply tune-ups. power_safe: answer a write only once the drive has it.
    """
    argv = [interpreter, "-c", BOOTSTRAP, package_root()]
    argv += [
        "--rfd",
        str(rfd),
        "--wfd",
        str(wfd),
        "--palace",
        identity.name,
        "--real",
        identity.path,
        "--by",
        identity.by,
    ]
    for flag, value in (
        ("--backend", identity.backend),
        ("--journal", journal),
    ):
        if value:
            argv += [flag, value]
    return [*argv, "--tune", "1" if tune else "0", *(["--power-safe", "1"] if power_safe else [])]


def engine_env(env: Mapping[str, str], identity: PalaceIdentity, own: Mapping[str, str]) -> dict[str, str]:
    """The engine's environment: the broker's, less what would lead it astray, and the user's settings `own` over it.

    The palace is named by argument where the client chose it by flag, else by MEMPALACE_PALACE_PATH: only for the flag
    does mempalace put the knowledge graph into the palace.
    """
    out = {name: value for name, value in env.items() if name not in _NOT_INHERITED} | dict(own)
    out.pop("MEMPALACE_MCP_READ_ONLY", None)  # a property of a session, which the broker sees to
    out["MEMPALACE_HUB_FORWARD"] = "0"
    out["MEMPALACE_MCP_IDLE_HOURS"] = "0"
    out["PYTHONUNBUFFERED"] = "1"
    if identity.by != "flag":
        out["MEMPALACE_PALACE_PATH"] = identity.name
    return out
