"""Read the inputs of an image from a checkout, and write them into a folder to build from. IO only.

An input is what git would store if the tracked files were committed now: untracked and ignored files don't count, line
ends are those of the repository, and a mode is executable or not. So every clone gives the same entries, whatever its
core.autocrlf, umask or leftovers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigError
from .fingerprint import Entry

_KINDS: dict[bytes, Literal["file", "executable", "link"]] = {
    b"100644": "file",
    b"100755": "executable",
    b"120000": "link",
}
_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")  # of another one, as in a hook


def read_inputs(root: Path, paths: Iterable[str]) -> list[Entry]:
    """Read every tracked file and link in and under `paths` (relative to `root`), with its present content.

    A path without any is a ConfigError: if it were left out silently, changes to it would go unnoticed.
    """
    wanted = [path.rstrip("/") for path in paths]
    with tempfile.TemporaryDirectory(prefix="pi-devbox-") as scratch:
        git = _scratch_git(root, Path(scratch))
        git.run("add", "--update", ".")
        listed = [_split(line) for line in _records(git.run("ls-files", "--stage", "-z", "--", *wanted))]
        contents = git.contents([oid for _, oid, _ in listed])
    entries = [Entry(path, _kind(mode, path), contents[oid]) for mode, oid, path in listed]
    for path in wanted:
        if not any((entry.path + b"/").startswith(os.fsencode(path + "/")) for entry in entries):
            raise ConfigError(
                f"{root / path} is an input of the image, and git has no file there.",
                hint="`git add` it, or correct `inputs` in devbox/image/companions.toml",
            )
    return sorted(set(entries))


def untracked(root: Path, paths: Sequence[str]) -> list[str]:
    """The files in and under `paths` that git neither tracks nor ignores."""
    found = _git_in(root).run("ls-files", "--others", "--exclude-standard", "-z", "--", *paths)
    return [os.fsdecode(path) for path in _records(found)]


def write_inputs(entries: Iterable[Entry], folder: Path) -> None:
    """Write entries into a folder; the modes do not depend on the umask."""
    for entry in entries:
        path = folder / os.fsdecode(entry.path)
        for parent in reversed(path.relative_to(folder).parents):
            (folder / parent).mkdir(exist_ok=True)
            (folder / parent).chmod(0o755)
        if entry.kind == "link":
            path.symlink_to(os.fsdecode(entry.content))
        else:
            path.write_bytes(entry.content)
            path.chmod(0o755 if entry.kind == "executable" else 0o644)


@dataclass(frozen=True)
class _Git:
    """git in one checkout."""

    root: Path
    env: Mapping[str, str]

    def run(self, *args: str, given: bytes = b"") -> bytes:
        """Run it and return its output. Raise ConfigError if it fails."""
        argv = ["git", "--literal-pathspecs", *args]
        try:
            done = subprocess.run(argv, cwd=self.root, env=self.env, input=given, capture_output=True, check=False)
        except OSError as exc:
            raise ConfigError(f"git can't be run in {self.root}: {exc.strerror}.", hint="install git") from exc
        if done.returncode:
            complaint = " ".join(done.stderr.decode(errors="replace").split())
            raise ConfigError(f"{self.root}: git {args[0]} failed: {complaint}", hint="run it in a clone (--root)")
        return done.stdout

    def contents(self, oids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Read objects by their ids."""
        wanted = sorted(set(oids))
        output = self.run("cat-file", "--batch", given=b"".join(oid + b"\n" for oid in wanted))
        found, at = {}, 0
        for oid in wanted:
            start = output.index(b"\n", at) + 1  # after "<id> <type> <size>"
            end = start + int(output[at:start].split()[2])
            found[oid] = output[start:end]
            at = end + 1
        return found


def _git_in(root: Path, **more: str) -> _Git:
    return _Git(root, {name: value for name, value in os.environ.items() if name not in _REPOSITORY} | more)


def _scratch_git(root: Path, scratch: Path) -> _Git:
    """git with an index and new objects of its own: the repository stays as it is."""
    git = _git_in(root)
    index, objects = (
        Path(root, os.fsdecode(git.run("rev-parse", "--git-path", name).rstrip(b"\n"))) for name in ("index", "objects")
    )
    (scratch / "info").mkdir()
    (scratch / "info" / "alternates").write_bytes(os.fsencode(objects.resolve()) + b"\n")
    if index.exists():
        shutil.copy2(index, scratch / "index")  # with its times: git tells by them which files to read again
    return _git_in(root, GIT_INDEX_FILE=str(scratch / "index"), GIT_OBJECT_DIRECTORY=str(scratch))


def _records(output: bytes) -> list[bytes]:
    return [record for record in output.split(b"\0") if record]


def _split(line: bytes) -> tuple[bytes, bytes, bytes]:
    """(mode, id, path) of a line "<mode> <id> <stage>\\t<path>"."""
    facts, _, path = line.partition(b"\t")
    mode, oid, _ = facts.split(b" ")
    return mode, oid, path


def _kind(mode: bytes, path: bytes) -> Literal["file", "executable", "link"]:
    if mode not in _KINDS:
        raise ConfigError(f"{os.fsdecode(path)} is a submodule.", hint="remove it from the inputs")
    return _KINDS[mode]
