"""Find the interpreter that has the user's mempalace, without starting it.

The broker runs in an environment of its own; mempalace is usually installed in another one (uv tool, pipx, a
project's venv). These places are searched, the first hit wins:

    1. the user's choice: an interpreter, or a mempalace-mcp script (MEMPALACE_BROKER_ENGINE, config.toml)
    2. the broker's own environment
    3. the interpreter behind `mempalace-mcp`, then `mempalace`, in the folders where installers put programs
    4. the same on PATH

PATH comes last because one broker serves all agents: whichever starts it, with a terminal's PATH or an app's, the
engine is the same.

An environment qualifies if it holds the metadata of mempalace >= 3.4.0. Only where the disk shows no metadata (conda,
Nix, a pyenv shim) is the user's choice run and asked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineNotFound
from .console_script import interpreters_of
from .paths import home_of
from .program_folders import executables, is_executable, numbers_of, tool_folders

SETTING = "MEMPALACE_BROKER_ENGINE"
SCRIPTS = ("mempalace-mcp", "mempalace")
MIN_VERSION = (3, 4, 0)
MIN_PYTHON = (3, 9)
_PROBE_TIMEOUT_S = 15.0
_PROBE = (
    "import json, sys\n"
    "try:\n"
    "    from importlib.metadata import version\n"
    "    found = version('mempalace')\n"
    "except Exception:\n"
    "    found = None\n"
    "print(json.dumps([sys.executable, found, list(sys.version_info[:2])]))\n"
)


@dataclass(frozen=True)
class EngineCommand:
    """An interpreter that can run the engine.

    Attributes:
        interpreter: absolute path, symlinks kept (the path of its python identifies a venv).
        source: where it was found, in words for `status` and `doctor`.
        version: version of its mempalace, or None where only the engine itself can tell.
    """

    interpreter: str
    source: str
    version: str | None


@dataclass(frozen=True)
class _Rejected:
    where: str
    why: str


def find_engine(env: Mapping[str, str], own_executable: str, path_env: str) -> EngineCommand:
    """Return the engine to run. `env[SETTING]` is binding: if it is set, nothing else is tried.

    Args:
        env: environment with the setting, and HOME for `~`.
        own_executable: the broker's own interpreter (sys.executable).
        path_env: directories to search last, as in PATH.

    Raises:
        EngineNotFound: the message lists every candidate and why it was rejected.
    """
    named = env.get(SETTING, "").strip()
    if named:
        return _chosen(named, env, path_env)
    rejected: list[_Rejected] = []
    for interpreter, source in _candidates(own_executable, path_env, tool_folders("mempalace", env, own_executable)):
        verdict = _judge(interpreter, source, home_of(env))
        if isinstance(verdict, EngineCommand):
            return verdict
        rejected.append(verdict)
    raise EngineNotFound(_nothing_found(rejected), hint=_INSTALL)


def engine_on_path(env: Mapping[str, str], path_env: str) -> EngineCommand | None:
    """The mempalace that a terminal's PATH leads to; it need not be the engine."""
    verdicts = (_judge(interpreter, source, home_of(env)) for interpreter, source in _candidates("", path_env, []))
    return next((verdict for verdict in verdicts if isinstance(verdict, EngineCommand)), None)


_INSTALL = (
    "run `mempalace-broker setup --engine`, or install mempalace where the broker finds it "
    "(`uv tool install mempalace`, `pipx install mempalace`), "
    f"or name its interpreter: {SETTING}=/path/to/venv/bin/python"
)
_CORRECT = f"correct {SETTING}, or `engine` in config.toml; without them the broker looks for mempalace by itself"


def _nothing_found(rejected: list[_Rejected]) -> str:
    if not rejected:
        return (
            "No mempalace found: not in the broker's own environment, and no mempalace-mcp where pip --user, uv, "
            "pipx and Homebrew put programs, or on PATH."
        )
    reasons = "; ".join(f"{item.where}: {item.why}" for item in rejected)
    return f"No mempalace {_dotted(MIN_VERSION)} or newer found ({reasons})."


def _candidates(own_executable: str, path_env: str, installed: list[str]) -> Iterator[tuple[str, str]]:
    if own_executable:
        yield os.path.abspath(own_executable), "the broker's own environment"
    seen = set()
    for where, folders in (("installed", installed), ("on PATH", path_env.split(os.pathsep))):
        for name in SCRIPTS:
            for script in executables(name, folders):
                for interpreter in interpreters_of(script, path_env):
                    if interpreter not in seen:
                        seen.add(interpreter)
                        yield interpreter, f"{name} {where} ({script})"


def _chosen(value: str, env: Mapping[str, str], path_env: str) -> EngineCommand:
    source = f"{SETTING}={value}"
    path = _resolve(value, env, path_env)
    if path is None:
        raise EngineNotFound(f"{source} names no file that can be executed.", hint=_CORRECT)
    rejected = _Rejected(path, "neither a Python interpreter nor a script of one")
    for interpreter in interpreters_of(path, path_env):
        verdict = _judge(interpreter, source, home_of(env))
        if isinstance(verdict, _Rejected) and verdict.why == _NO_METADATA:
            verdict = _probe(interpreter, source)
        if isinstance(verdict, EngineCommand):
            return verdict
        rejected = verdict
    raise EngineNotFound(f"{source} can't be used: {rejected.where}: {rejected.why}.", hint=_CORRECT)


def _resolve(value: str, env: Mapping[str, str], path_env: str) -> str | None:
    if value.startswith("~/"):
        value = os.path.join(env.get("HOME", ""), value[2:])
    if os.sep in value:
        path = os.path.abspath(value)
        if os.path.isdir(path):  # an environment instead of its interpreter
            path = os.path.join(path, "bin", "python")
        return path if is_executable(path) else None
    return next(executables(value, path_env.split(os.pathsep)), None)


# --- from an interpreter to the version of its mempalace

_NO_METADATA = "has no mempalace"


def _judge(interpreter: str, source: str, home: str) -> EngineCommand | _Rejected:
    return _verdict(interpreter, source, installed_version(interpreter, home), _python_version(interpreter))


def _verdict(
    interpreter: str, source: str, version: str | None, python: tuple[int, ...] | None
) -> EngineCommand | _Rejected:
    if not version:
        return _Rejected(interpreter, _NO_METADATA)
    if numbers_of(version) < MIN_VERSION:
        return _Rejected(interpreter, f"mempalace {version} is older than {_dotted(MIN_VERSION)}")
    if python is not None and python < MIN_PYTHON:
        return _Rejected(interpreter, f"Python {_dotted(python)} is older than {_dotted(MIN_PYTHON)}")
    return EngineCommand(interpreter, source, version)


def installed_version(interpreter: str, home: str = "") -> str | None:
    """Version of mempalace in an interpreter's environment, from the name of its metadata; None if there is none.

    Args:
        home: where `pip install --user` put packages, "" where nobody's count.
    """
    for folder in _site_packages(interpreter, home):
        for path in sorted([*folder.glob("mempalace-*/METADATA"), *folder.glob("mempalace-*/PKG-INFO")]):
            match = re.fullmatch(r"mempalace-(\d[^-]*)(-py[\d.]+)?\.(dist|egg)-info", path.parent.name)
            if match:
                return match[1]
    return None


def _site_packages(interpreter: str, home: str) -> Iterator[Path]:
    """Directories that an interpreter imports from: its own environment, the user's, the one that it was made from."""
    root = Path(interpreter).parent.parent
    config = _pyvenv(root)
    if config is not None:
        yield from _libraries(root, None)
        if config.get("include-system-site-packages", "").lower() != "true" or "home" not in config:
            return
        base = Path(config["home"]).parent
        python = numbers_of(config.get("version", ""))[:2] or None
        yield from _of_user(home, python)
        yield from _libraries(base, python)
        return
    real = Path(os.path.realpath(interpreter))
    python = _version_in_name(real.name)
    yield from _of_user(home, python)
    for prefix in dict.fromkeys((real.parent.parent, root)):
        yield from _libraries(prefix, python)
    if real.parent == Path("/usr/bin"):  # Debian's pip installs there
        yield from _libraries(Path("/usr/local"), python)


def _libraries(prefix: Path, python: tuple[int, ...] | None) -> Iterator[Path]:
    version = _dotted(python) if python else "3*"
    for lib in ("lib", "lib64"):
        yield from sorted(prefix.glob(f"{lib}/python{version}/site-packages"))
        yield from sorted(prefix.glob(f"{lib}/python{version}/dist-packages"))


def _of_user(home: str, python: tuple[int, ...] | None) -> Iterator[Path]:
    """Where `pip install --user` puts packages, for a Python of macOS's frameworks too."""
    if home and python:
        yield from _libraries(Path(home, ".local"), python)
        yield Path(home, "Library", "Python", _dotted(python), "lib", "python", "site-packages")


def _pyvenv(root: Path) -> dict[str, str] | None:
    try:
        lines = (root / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _python_version(interpreter: str) -> tuple[int, ...] | None:
    config = _pyvenv(Path(interpreter).parent.parent) or {}
    recorded = config.get("version") or config.get("version_info")  # venv and uv, virtualenv
    if recorded:
        return numbers_of(recorded)[:2]
    return _version_in_name(os.path.basename(os.path.realpath(interpreter)))


def _version_in_name(name: str) -> tuple[int, ...] | None:
    match = re.search(r"(\d+)\.(\d+)", name)
    return (int(match[1]), int(match[2])) if match else None


def _probe(interpreter: str, source: str) -> EngineCommand | _Rejected:
    """Run the interpreter that the user chose and ask it; `-I` keeps the working directory off its path."""
    try:
        done = subprocess.run(
            [interpreter, "-I", "-c", _PROBE],
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        executable, version, python = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        return _Rejected(interpreter, f"does not run as a Python interpreter ({exc})")
    return _verdict(executable or interpreter, source, version, tuple(python))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
