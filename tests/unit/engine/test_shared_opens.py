"""What is opened below a folder that others can write to stays in it, whatever they put there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker.engine.shared_opens import refuse_to_write_through

# argv: the guarded folder, a file of the user's outside
_SCRIPT = """
import io, os, shutil, sys, tempfile
from pathlib import Path
from mempalace_broker.engine.shared_opens import OpenGuard
root, victim = map(Path, sys.argv[1:])
OpenGuard([str(root)]).install()

def refused(opens):
    try:
        opens()
    except OSError as exc:
        return isinstance(exc, PermissionError) or exc.errno == 40
    return False

def opens(path, writing=True, reading=True):
    if reading:
        yield lambda: open(path).read()
        yield lambda: io.open(path, "rb").read()
        yield lambda: path.read_text()
        yield lambda: os.close(os.open(path, os.O_RDONLY))
    if writing:
        yield lambda: open(path, "w").write("x")
        yield lambda: open(str(path), "a").write("x")
        yield lambda: open(os.fsencode(path), "r+").write("x")
        yield lambda: path.write_text("x")
        yield lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        yield lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

for name in ("link", "dangling", "out/file", "out/new", "inner/../out/file"):
    for number, one in enumerate(opens(root / name, reading=name != "dangling" and "new" not in name)):
        assert refused(one), (name, number)
for name in ("fifo", "socket", "loop"):
    for number, one in enumerate(opens(root / name)):
        assert refused(one), (name, number)
assert open(root / "config.json").read() == "precious", "the user's own link"
for one in opens(root / "config.json", reading=False):
    assert refused(one)
assert not (victim.parent / "made").exists()
assert not (victim.parent / "folder" / "new").exists()

for name in ("sparse.json", "sparse.txt", "sparse.jsonl"):
    with open(root / name, "w") as file:
        file.truncate(33 << 20)
    assert [refused(one) for one in opens(root / name, writing=False)] == [name != "sparse.jsonl"] * 4
    assert refused(lambda: open(root / name, "r+").read()) == (name != "sparse.jsonl")
    (root / name).write_text("fine")
    assert open(root / name).read() == "fine"

for one in opens(root / "plain"):
    one()
(root / "plain").write_text("x")
assert (root / "near").read_text() == "x", "a link that stays inside is read"
(root / "new").write_text("fine")
with open(root / "new", "w", 1, "utf-8") as file:
    file.write("less")
assert (root / "new").read_text() == "less"
with tempfile.NamedTemporaryFile(dir=root) as file:
    pass
os.close(os.open(root, os.O_RDONLY))
folder = os.open(root, os.O_RDONLY)
os.close(os.open("plain", os.O_RDONLY, dir_fd=folder))
shutil.rmtree(root / "inner")
os.chdir(root)
assert refused(lambda: open("link").read())
assert (victim.parent / "folder" / "file").read_text() == "mine", "elsewhere nothing is guarded"
victim.read_text()
(victim.parent / "elsewhere").write_text("fine")
print("done")
"""


def test_it_stays_inside(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    for folder in (root, root / "inner", home, home / "folder"):
        folder.mkdir()
    victim = home / "bashrc"
    victim.write_text("precious")
    (home / "folder" / "file").write_text("mine")
    (root / "plain").write_text("x")
    for name, target in (
        ("link", victim),
        ("config.json", victim),
        ("dangling", home / "made"),
        ("out", home / "folder"),
        ("near", "plain"),
        ("loop", "loop"),
    ):
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", 0o140600)
    argv = [sys.executable, "-c", _SCRIPT, os.path.realpath(root), os.path.realpath(victim)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("linked", [True, False])
def test_a_call_that_rewrites_a_linked_configuration_is_refused(tmp_path: Path, linked: bool) -> None:
    config = tmp_path / "config.json"
    config.symlink_to("elsewhere") if linked else config.touch()
    assert bool(refuse_to_write_through(str(config), "mempalace_hook_settings", {"silent_save": True})) is linked
    assert refuse_to_write_through(str(config), "mempalace_hook_settings", {}) is None
    assert refuse_to_write_through(str(config), "mempalace_kg_add", {}) is None
