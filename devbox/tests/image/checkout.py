"""A small checkout to plan from, and resolved companions for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from devbox.tests.image.gitserver import git
from pi_devbox.image.model import Choices, Resolved, Sources
from pi_devbox.image.recipe import Project, parse
from pi_devbox.image.tree import read_inputs

SHA = "1234567890abcdef1234567890abcdef12345678"
OTHER = "fedcba0987654321fedcba0987654321fedcba09"
CHOICES = Choices(image="registry.example.org/me/box", nonce="abcdef012345")

HEAD = """
[image]
name = "registry.example.org/me/box"
platforms = ["linux/amd64", "linux/arm64"]
[tokens]
%s
[base]
dockerfile = "devbox/image/Dockerfile.base"
inputs = ["devbox/image/rootfs", "devbox/image/entrypoint.sh", "src"]
[variant]
dockerfile = "devbox/image/Dockerfile.variant"
base_arg = "BASE_IMAGE"
[[variants]]
name = "pi"
[[variants]]
name = "studio"
suffix = "-studio"
args = { STUDIO = "true" }
"""
COMPANION = """
[[companion]]
name = "%s"
kind = "%s"
url = "%s"
ref = "%s"
where = "%s"
build_arg = "%s"
"""
COMPANIONS = (
    ("toolkit", "git", "https://git.example.org/me/toolkit.git", "main", "base", "TOOLKIT_REF"),
    ("fork", "git", "https://git.example.org/me/fork.git", "main", "variant", "FORK_REF"),
    ("studio", "git", "https://git.example.org/me/studio.git", "v1", "variant", "STUDIO_REF"),
)
FILES = {
    "devbox/image/Dockerfile.base": (
        "FROM scratch\nARG TOOLKIT_REF\nCOPY devbox/image/rootfs/ /\nCOPY devbox/image/entrypoint.sh src /x/\n"
    ),
    "devbox/image/Dockerfile.variant": "ARG BASE_IMAGE\nFROM $BASE_IMAGE\nARG FORK_REF\nARG STUDIO_REF\nARG STUDIO\n",
    "devbox/image/rootfs/etc/one": "one\n",
    "devbox/image/rootfs/usr/two": "two\r\n",
    "devbox/image/entrypoint.sh": "#!/bin/sh\n",
    "src/code.py": "print(1)\n",
}


def companions_toml(companions: Sequence[tuple[str, ...]] = COMPANIONS, tokens: str = "") -> str:
    """The text of a devbox/image/companions.toml; the companion "studio" is only in the variant of that name."""
    tables = [COMPANION % one + ('variants = ["studio"]\n' if one[0] == "studio" else "") for one in companions]
    return HEAD % tokens + "".join(tables)


def make_checkout(root: Path, companions: Sequence[tuple[str, ...]] = COMPANIONS, tokens: str = "") -> Path:
    """All files under `root`, tracked by git."""
    for name, text in {**FILES, "devbox/image/companions.toml": companions_toml(companions, tokens)}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (root / "devbox/image/entrypoint.sh").chmod(0o755)
    (root / "devbox/image/rootfs/etc/link").symlink_to("one")
    git(root, "init", "-q")
    git(root, "add", ".")
    return root


def project_of(root: Path) -> Project:
    """The parsed companions.toml."""
    return parse((root / "devbox/image/companions.toml").read_text(encoding="utf-8"), "companions.toml")


def sources_of(root: Path) -> Sources:
    """The inputs of a plan."""
    project = project_of(root)
    return Sources(project, read_inputs(root, project.base.paths), read_inputs(root, project.variant.paths))


def resolved(**values: str | None) -> list[Resolved]:
    """All of COMPANIONS at SHA, except those given: at another value, or (None) unresolved."""
    found = []
    for name, _kind, _url, ref, *_rest in COMPANIONS:
        value = values.get(name, SHA)
        found.append(Resolved(name=name, ref=ref, value=value or ref, how="git" if value else "name", note=""))
    return found
