"""What every benchmark shares: engines, our own installation, the machine, tables, and how figures are summed up."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
DEV = REPO / ".dev"
VERSIONS = ("3.4.0", "newest")
DATABASES = "databases"  # the newest, with a client of PostgreSQL and the like
_ENGINE_ENV = {
    "3.4.0": ("MPB_ENGINE_340", "engine-3.4.0"),
    "newest": ("MPB_ENGINE_NEWEST", "engine-newest"),
    DATABASES: ("MPB_ENGINE_DATABASES", "engine-databases"),
}
MODEL = ".cache/chroma/onnx_models/all-MiniLM-L6-v2"


class Lacking(Exception):
    """Something that a benchmark needs is not on this machine; the text says what to do."""


@dataclass(frozen=True)
class Engine:
    """One installed mempalace.

    Attributes:
        name: what the command line called it. python: its interpreter. version: of mempalace.
    """

    name: str
    python: Path
    version: str

    @property
    def server(self) -> Path:
        """Its bare MCP server."""
        return self.python.parent / "mempalace-mcp"

    @property
    def has_hub(self) -> bool:
        """Whether `mempalace serve` exists and its `mempalace-mcp` forwards to it."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (3, 9)


def engine(name: str) -> Engine:
    """The engine of that name (see `_ENGINE_ENV`), or at a path: interpreter, virtual environment or mempalace-mcp.

    Raises:
        Lacking: there is no mempalace there.
    """
    if name in _ENGINE_ENV:
        variable, folder = _ENGINE_ENV[name]
        path = Path(os.environ.get(variable) or DEV / folder)
    else:
        path = Path(name)
    if path.name.startswith("mempalace"):
        path = path.parent
    if path.is_dir():
        path = path / "python" if (path / "python").exists() else path / "bin" / "python"
    if not (path.parent / "mempalace-mcp").exists():
        raise Lacking(f"no mempalace {name} at {path.parent}; run `python3 dev.py setup` or give --engine PATH")
    code = "import importlib.metadata as m; print(m.version('mempalace'))"
    version = subprocess.run([path, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    return Engine(name, path, version)


def model() -> Path:
    """Directory of the embedding model.

    Raises:
        Lacking: it is neither cached nor set up.
    """
    for home in (os.environ.get("MPB_MODEL_HOME"), DEV / "model-home", Path.home()):
        if home and (Path(home) / MODEL / "onnx" / "model.onnx").exists():
            return Path(home).resolve() / MODEL
    raise Lacking("no embedding model; run `python3 dev.py setup`, or set MPB_MODEL_HOME")


# -- our own programs, installed as a user installs them


def own_bin() -> Path:
    """Directory of mp-shim and mempalace-broker: MPB_BIN, or a regular installation of this checkout.

    An editable installation starts slower than what users have.
    """
    given = os.environ.get("MPB_BIN")
    return Path(given) if given else _installed()


@functools.cache  # one run measures one installation, whatever is edited meanwhile
def _installed() -> Path:
    """Where this checkout is installed; it is installed again when the source is newer."""
    folder = DEV / "bench-venv"
    DEV.mkdir(exist_ok=True)
    with (DEV / "bench-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "source.sha256"
        wanted = _source_hash()
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(folder)
            stamp.write_text(wanted)
    return folder / "bin"


def _source_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([*(REPO / "src").rglob("*.py"), REPO / "pyproject.toml"]):
        digest.update(f"{path.relative_to(REPO)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _install(folder: Path) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "pip>=25.2"], check=True, stdout=sys.stderr)  # an older one makes programs that import `re`
    subprocess.run([*pip, str(REPO)], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "--no-deps", "--force-reinstall", str(REPO)], check=True, stdout=sys.stderr)


# -- the machine


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "platform": sysconfig.get_platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no /proc here: the generic name will do
    return platform.processor() or platform.machine()


def machine_line() -> str:
    facts = machine()
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}, "
        f"Python {facts['python']}; load {facts['load']} at the start"
    )


# -- figures


def percentile(values: Sequence[float], p: float) -> float:
    """Nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(p / 100 * len(ordered)) - 1))]


def median(values: Iterable[float]) -> float:
    """Median; NaN of nothing."""
    found = list(values)
    return statistics.median(found) if found else math.nan


@dataclass
class Check:
    """One target of ours and what was measured.

    Attributes:
        name: what was measured. value: ours. limit: the most (or, with `least`, the least) it may be.
        note: rival's figure or the like, in words.
    """

    name: str
    value: float
    limit: float
    unit: str = ""
    note: str = ""
    least: bool = False

    @property
    def ok(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit

    def row(self) -> list[str]:
        sign = "≥" if self.least else "≤"
        return [
            self.name,
            f"{fmt(self.value)}{self.unit}",
            f"{sign} {fmt(self.limit)}{self.unit}",
            "met" if self.ok else "MISSED",
            self.note,
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "least": self.least,
            "unit": self.unit,
            "ok": self.ok,
            "note": self.note,
        }


def fmt(value: float) -> str:
    """A figure with as many digits as mean something."""
    if math.isnan(value):
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    for bound, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(value) < bound:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, markdown: bool = False) -> str:
    """A table for a terminal, or in Markdown."""
    body = [list(map(str, row)) for row in rows]
    widths = [max(len(line[i]) for line in [list(head), *body]) for i in range(len(head))]
    cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in [list(head), *body]]
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    else:
        lines = ["  ".join(line).rstrip() for line in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def dump(data: object) -> str:
    """JSON for --json."""
    return json.dumps(data, indent=1, ensure_ascii=False)
