from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox.tests.image.checkout import make_checkout, project_of
from devbox.tests.image.gitserver import git
from devbox.tests.imagebox import REPO
from pi_devbox.errors import ConfigError
from pi_devbox.image.fingerprint import Entry, Fact, fingerprint, tag
from pi_devbox.image.tree import read_inputs, write_inputs

paths = st.text(alphabet="ab/._é", min_size=1, max_size=8).map(str.encode)
entry = st.builds(Entry, paths, st.sampled_from(["file", "executable", "link"]), st.binary(max_size=12))
entries = st.lists(entry, max_size=6, unique_by=lambda one: one.path)
facts = st.lists(st.builds(Fact, *[st.text(max_size=4)] * 3), max_size=4)


@given(entries, facts, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(some: list[Entry], more: list[Fact], dice: random.Random) -> None:
    before = fingerprint(some, more)
    dice.shuffle(some)
    dice.shuffle(more)
    assert fingerprint(some, more) == before


@given(entries, facts, entries, facts)
def test_different_inputs_have_different_fingerprints(
    some: list[Entry], these: list[Fact], other: list[Entry], those: list[Fact]
) -> None:
    same = set(some) == set(other) and set(these) == set(those)
    assert (fingerprint(some, these) == fingerprint(other, those)) == same


@given(st.lists(st.text(alphabet="0123456789:,ef", max_size=6), min_size=2, max_size=2), st.integers(0, 12))
def test_nothing_can_move_over_a_border_between_fields(fields: list[str], where: int) -> None:
    joined = "".join(fields)
    shifted = [joined[:where], joined[where:]]
    same = shifted == fields
    assert (fingerprint([], [Fact("k", *fields)]) == fingerprint([], [Fact("k", *shifted)])) == same
    path, other = (Entry(f[0].encode(), "file", f[1].encode()) for f in (fields, shifted))
    assert (fingerprint([path], []) == fingerprint([other], [])) == same


def test_the_format_of_the_fingerprint_is_stable() -> None:
    """Every Python, machine and release must find the same: these bytes change only with the format's number."""
    some = [Entry(b"b", "link", b"a"), Entry(b"a", "executable", b"\x00\r\n")]
    hashed = (
        b"1:26:format17:pi-devbox image 1"
        b"1:45:entry1:a10:executable3:\x00\r\n"
        b"1:45:entry1:b4:link1:a"
        b"1:44:fact9:companion1:x3:abc"
    )
    assert fingerprint(some, [Fact("companion", "x", "abc")]) == hashlib.sha256(hashed).hexdigest()


def test_tags() -> None:
    assert tag("base", "0123456789abcdef" * 4) == "base-0123456789ab"
    assert tag("base", "0123456789abcdef" * 4, "77") == "base-0123456789ab-unresolved-77"


def _read(root: Path) -> str:
    return fingerprint(read_inputs(root, project_of(root).base.paths), [])


def test_every_change_of_an_input_is_seen(tmp_path: Path) -> None:
    root = make_checkout(tmp_path)
    seen = {_read(root)}

    def changed() -> bool:
        found = _read(root)
        new = found not in seen
        seen.add(found)
        return new

    (root / "devbox/image/Dockerfile.base").write_text("FROM other\n", encoding="utf-8")
    assert changed()
    (root / "devbox/image/rootfs/usr/two").write_bytes(b"two\n")  # was CRLF, also in git
    assert changed()
    git(root, "mv", "devbox/image/rootfs/etc/one", "devbox/image/rootfs/etc/uno")
    assert changed()
    (root / "devbox/image/entrypoint.sh").chmod(0o644)
    assert changed()
    (root / "devbox/image/rootfs/etc/link").unlink()
    (root / "devbox/image/rootfs/etc/link").symlink_to("uno")
    assert changed()
    (root / "devbox/image/rootfs/etc/link").unlink()
    (root / "devbox/image/rootfs/etc/link").write_text("uno", encoding="utf-8")  # a file instead of the link
    assert changed()
    (root / "src/more.py").write_bytes(b"")
    assert not changed(), "git does not know it"
    git(root, "add", "--intent-to-add", "src/more.py")
    assert changed()
    (root / "src/more.py").unlink()
    assert not changed()


def test_what_is_not_in_git_is_not_seen(tmp_path: Path) -> None:
    root = make_checkout(tmp_path)
    before, index = _read(root), (root / ".git/index").read_bytes()
    (root / "devbox/image/rootfs/etc/._one").write_bytes(b"a shadow")
    (root / "src/note.txt").write_bytes(b"untracked")
    (root / "src/__pycache__").mkdir()
    (root / "src/__pycache__/code.cpython-311.pyc").write_bytes(b"x")
    (root / "src/empty").mkdir()
    os.mkfifo(root / "src/pipe")
    os.utime(root / "src/code.py", (1, 1))
    (root / "src/code.py").chmod(0o600)
    (root / "tests").mkdir()
    (root / "tests/x").write_bytes(b"no input")
    assert _read(root) == before
    assert (root / ".git/index").read_bytes() == index
    git(root, "add", "--force", "devbox/image/rootfs/etc/._one")
    assert _read(root) != before


def test_clones_with_other_line_ends_are_the_same_inputs(tmp_path: Path) -> None:
    """With .gitattributes the files are equal, too; in a clone from before it came, only what git stores."""
    root = make_checkout(tmp_path / "root")
    git(root, "commit", "-q", "-m", "x")
    git(tmp_path, "clone", "-q", "--config", "core.autocrlf=true", str(root), "crlf")
    assert (tmp_path / "crlf/src/code.py").read_bytes().endswith(b"\r\n")
    assert _read(tmp_path / "crlf") == _read(root)
    (root / ".gitattributes").write_bytes((REPO / ".gitattributes").read_bytes())
    git(root, "add", ".gitattributes")
    git(root, "add", "--renormalize", ".")
    git(root, "commit", "-q", "-m", "attributes")
    git(tmp_path, "clone", "-q", "--config", "core.autocrlf=true", str(root), "lf")
    assert (tmp_path / "lf/src/code.py").read_bytes() == (root / "src/code.py").read_bytes()
    assert _read(tmp_path / "lf") == _read(root)


def test_what_is_hashed_is_what_is_built(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "root")
    (root / "src/note.txt").write_bytes(b"untracked")
    entries = read_inputs(root, project_of(root).base.paths)
    before = os.umask(0o077)
    try:
        write_inputs(entries, tmp_path)
    finally:
        os.umask(before)
    context = tmp_path / "devbox/image"
    assert not (tmp_path / "src/note.txt").exists()
    assert (context / "rootfs/usr/two").read_bytes() == b"two\r\n"
    assert os.readlink(context / "rootfs/etc/link") == "one"
    modes = [
        stat.S_IMODE((context / name).stat().st_mode) for name in ("entrypoint.sh", "rootfs/etc/one", "rootfs/etc")
    ]
    assert modes == [0o755, 0o644, 0o755]
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "devbox", "src")
    assert read_inputs(tmp_path, project_of(root).base.paths) == entries


@pytest.mark.parametrize(("lang", "umask"), [("C", 0o077), ("C.UTF-8", 0o022)])
def test_the_machine_has_no_say(tmp_path: Path, lang: str, umask: int) -> None:
    """A checkout made elsewhere, with another umask and locale, gives the same fingerprint."""
    here = make_checkout(tmp_path / "here")
    (here / "devbox/image/rootfs/Zé").write_bytes(b"x")
    (here / "devbox/image/rootfs/a").write_bytes(b"x")
    git(here, "add", ".")
    there = tmp_path / "quite" / "else where"
    there.parent.mkdir()
    subprocess.run(f"umask {umask:o}; cp -R {here} '{there}'", shell=True, check=True)
    script = (
        "import sys; from pathlib import Path; root = Path(sys.argv[1]);"
        "from pi_devbox.image.fingerprint import fingerprint;"
        "from pi_devbox.image.tree import read_inputs; from pi_devbox.image.recipe import parse;"
        "project = parse((root / 'devbox/image/companions.toml').read_text(encoding='utf-8'), 'x');"
        "print(fingerprint(read_inputs(root, project.base.paths), []))"
    )
    env = {**os.environ, "LC_ALL": lang, "LANG": lang, "PYTHONHASHSEED": str(umask)}
    done = subprocess.run([sys.executable, "-c", script, there], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == _read(here)


def test_an_input_that_is_missing_or_not_in_git_is_an_error(tmp_path: Path) -> None:
    root = make_checkout(tmp_path)
    (root / "devbox/image/gone").touch()
    with pytest.raises(ConfigError, match=r"devbox/image/gone is an input .* git has no file there.* `git add` it"):
        read_inputs(root, ["src", "devbox/image/gone"])
    (root / ".git").rename(root / "no-git")
    with pytest.raises(ConfigError, match=r"git rev-parse failed: fatal: not a git repository.* in a clone"):
        read_inputs(root, ["src"])
