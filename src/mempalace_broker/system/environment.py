"""The environment and the limits of a process that serves everybody, whoever happened to start it.

A broker outlives the agent that starts it. So it takes from that agent's environment only the variables in `PASSES`,
each for a reason: nothing that leads an interpreter or its libraries elsewhere (PYTHONPATH, LD_PRELOAD), no secret, and
neither its time zone nor its locale. Whatever else the engine needs stands in the user's own settings, under `env`.
"""

from __future__ import annotations

import os
import resource

from .file_trust import others_write
from .private import private_home
from .startup import keep_memory_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROXIES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
)
_AUTHORITIES = "which certificate authorities this network has"
_PALACE = "names the palace, its configuration or its storage"
PASSES = {
    "HOME": "mempalace keeps its configuration, its knowledge graph and its model below it",
    "USER": "libraries ask for the user's name",
    "LOGNAME": "as USER",
    "XDG_CONFIG_HOME": "mempalace may keep its config.json below it",
    **dict.fromkeys(PROXIES, "how this machine reaches the network"),
    **dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), _AUTHORITIES),
    **dict.fromkeys(("MEMPALACE_PALACE_PATH", "MEMPALACE_PALACE", "MEMPAL_PALACE_PATH", "MEMPALACE_PATH"), _PALACE),
    **dict.fromkeys(("MEMPALACE_CONFIG_DIR", "MEMPALACE_BACKEND", "MEMPALACE_BACKEND_EXPLICIT"), _PALACE),
    **dict.fromkeys(("MEMPALACE_QDRANT_NAMESPACE", "MEMPALACE_PGVECTOR_NAMESPACE"), _PALACE),
    **dict.fromkeys(("MEMPALACE_PGVECTOR_SHARED_NAMESPACE", "MEMPALACE_MILVUS_NAMESPACE"), _PALACE),
    **dict.fromkeys(("MEMPALACE_MILVUS_DB_NAME", "MEMPALACE_EMBEDDING_MODEL"), _PALACE),
    "MEMPALACE_MCP_TIMEOUT_MS": "a setting of the broker",
    "MEMPALACE_MCP_INIT_TIMEOUT_MS": "a setting of the broker",
}
_SETTINGS = "MEMPALACE_BROKER_"  # settings of the broker, and MEMPALACE_BROKER_PRIVATE
_CLIENTS_OWN = ("MEMPALACE_BROKER_NO_SPAWN", "MEMPALACE_BROKER_TOKEN_FILE")
_EXPECTED_NOT_TO = (  # the client's, and ours
    "MEMPALACE_BROKER",
    "MEMPALACE_HUB_FORWARD",
    "MEMPALACE_MCP_IDLE_HOURS",
    "MEMPALACE_MCP_READ_ONLY",
)
_NAMED = 20
LEFT_OUT = "MEMPALACE_BROKER_LEFT_OUT"  # names, for `status`: a user may expect that they count
_FOLDERS = ("/usr/local/bin", "/opt/homebrew/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
_MAX_DESCRIPTORS = 10_240
_STACK = 8 << 20  # more makes the system choose smaller stacks for threads
_FEW_DESCRIPTORS = 1024
_PREFIXES = ("MEMPALACE_", "MEMPAL_")


def known_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a daemon, from that of whoever starts it."""
    out = {name: env[name] for name in PASSES if name in env}
    out |= {name: value for name, value in env.items() if name.startswith(_SETTINGS) and name not in _CLIENTS_OWN}
    for name in ("HOME", "MEMPALACE_CONFIG_DIR"):
        if out.get(name, "").strip() and not out[name].startswith("~"):
            out[name] = os.path.abspath(out[name])  # a daemon has another working directory
    out["PATH"] = os.pathsep.join(_folders(env.get("PATH", "")))
    out["LANG"] = "C.UTF-8"
    temp = env.get("TMPDIR", "")
    if temp and _is_ours_alone(temp):
        out["TMPDIR"] = temp
    if LEFT_OUT not in out and (names := _left_out(env)):
        out[LEFT_OUT] = " ".join(names)
    return out


def _left_out(env: Mapping[str, str]) -> list[str]:
    """Names of mempalace's own variables that do not pass."""
    known = {*PASSES, *_EXPECTED_NOT_TO}
    named = (name for name in env if name.startswith(_PREFIXES) and not name.startswith(_SETTINGS) and env[name])
    return sorted(name for name in named if name not in known and name.isidentifier())[:_NAMED]


def _folders(path: str) -> list[str]:
    """Where programs are looked for: the starter's folders, unless others can write there, then the usual ones."""
    home = private_home()
    usual = ([os.path.join(home, ".local/bin")] if home else []) + list(_FOLDERS)
    named = [folder for folder in path.split(os.pathsep) if os.path.isabs(folder) and not _others_write(folder)]
    return list(dict.fromkeys([*named, *usual]))


def _others_write(folder: str) -> bool:
    try:
        info = os.stat(folder)
    except OSError:
        return False  # nothing is found there
    return info.st_uid not in (os.geteuid(), 0) or others_write(info)


def _is_ours_alone(folder: str) -> bool:
    try:
        info = os.stat(folder)
    except OSError:
        return False
    return os.path.isdir(folder) and info.st_uid == os.geteuid() and not others_write(info)


def raise_limits() -> None:
    """Raise this process's soft limits as far as they go, that of descriptors as far as it makes sense."""
    for name in _LIMITS:
        _limit(name, "")
    _raise(resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS)


def settle_process(*, by_agent: bool) -> list[tuple[str, str]]:
    """Give this process the user's own limits and a private umask, and let nobody dump or trace it.

    Args:
        by_agent: an agent started it, whose priority is nobody else's.

    Returns:
        what could not be mended, each with its hint.
    """
    os.umask(0o077)
    found = [_limit(name, what) for name, what in _LIMITS.items()]
    _raise(resource.RLIMIT_STACK, _STACK)
    keep_memory_private()
    descriptors = _raise(resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS)
    if 0 <= descriptors < _FEW_DESCRIPTORS:
        found.append(f"at most {descriptors} files and connections may be open")
    if by_agent and not _first_priority():
        found.append(f"it runs with lower priority (nice {os.nice(0)})")
    return [(f"{what}: a limit of whoever started this broker", _RESTART) for what in found if what]


_RESTART = "start it without that limit: `mempalace-broker restart` in a plain terminal"
_LIMITS = {
    "RLIMIT_AS": "address space",
    "RLIMIT_DATA": "data segment",
    "RLIMIT_RSS": "",
    "RLIMIT_FSIZE": "size of a file",
    "RLIMIT_CPU": "seconds of processor time",
    "RLIMIT_NPROC": "",
    "RLIMIT_MEMLOCK": "",
}


def _limit(name: str, what: str) -> str:
    """Raise a limit as far as it goes; the limit that stays in words, "" where none does or none matters."""
    number = getattr(resource, name, None)
    if number is None:
        return ""
    left = _raise(number, resource.RLIM_INFINITY)
    return f"{what} is limited to {left}" if what and left != resource.RLIM_INFINITY else ""


def _raise(number: int, wanted: int) -> int:
    """Raise a soft limit to `wanted`, or to the hard one where that is lower; the limit then."""
    soft, hard = resource.getrlimit(number)
    best = hard if wanted == resource.RLIM_INFINITY else _lower(wanted, hard)
    if soft == resource.RLIM_INFINITY or (best != resource.RLIM_INFINITY and soft >= best):
        return soft
    try:
        resource.setrlimit(number, (best, hard))
    except (OSError, ValueError):  # macOS has lower limits than it tells
        return soft
    return best


def _lower(one: int, other: int) -> int:
    return one if other == resource.RLIM_INFINITY else min(one, other)


def _first_priority() -> bool:
    """Whether this process has the usual priority, or could take it."""
    if os.nice(0) <= 0:
        return True
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        return False
    return True
