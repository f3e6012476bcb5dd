"""Builds and runs the devbox image without an engine daemon: buildah and podman, on a base made by mmdebstrap.

    python3 -m devbox.tests.imagebuild all      base, pi, studio
    python3 -m devbox.tests.imagebuild run pi-devbox:pi -- pi --version

Needs root and the Debian packages buildah, podman, crun and mmdebstrap. The Dockerfiles are built unchanged. All
that they need from outside of Debian, PyPI and npm has a stand-in here:

* the base image: made by mmdebstrap and stored under the name in FROM;
* companions: nearly empty git repositories. A git configuration mounted into the build puts them in place of the real
  addresses (`url.insteadOf`). MPB_COMPANIONS=DIR uses DIR/<name>.git instead if it exists.

A private CA (SSL_CERT_FILE) is mounted into the build too; none of it stays in the image.
Everything lies in MPB_IMAGE_STORE (default .dev/image).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
IMAGE = REPO / "devbox" / "image"
BASE = "docker.io/library/debian:trixie-slim"
TAG = "localhost/pi-devbox"
AT_BRANCH = "toolkit"  # the companion that is cloned by its branch; its stand-in never changes
TOOLS = ("buildah", "podman", "crun", "mmdebstrap", "git", "bindfs")
ENGINE_CONF = """\
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""
# Storage leaves mounts behind: keep them in their own namespace. crun refuses hybrid cgroups: mount plain ones.
ALONE = """umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null || mount -t tmpfs tmpfs /sys/fs/cgroup
exec "$@" """
_MANIFEST = '{"name": "stub", "dependencies": {"ws": "8"}, "pi": {"extensions": ["./index.ts"]}}'
_EXTENSION = "export default function (_pi: unknown) {}\n"
STUBS = {  # by companion; "toolkit" holds nothing for pi
    "mempalace-toolkit": {
        "bin/mempalace-session": "#!/bin/sh\necho mempalace-session\n",
        "bin/mempalace-docs": "#!/bin/sh\necho mempalace-docs\n",
    },
    "pi-fork": {"package.json": _MANIFEST, "index.ts": _EXTENSION},
    "obsmem": {"package.json": _MANIFEST, "index.ts": _EXTENSION},
    "extensions": {"extensions/one.ts": _EXTENSION},
    "studio": {"package.json": _MANIFEST, "index.ts": _EXTENSION},
}


def lacking() -> str:
    """Say what this machine lacks to build images; empty if nothing."""
    if os.geteuid() != 0:
        return "building images needs root"
    missing = [name for name in TOOLS if shutil.which(name) is None]
    return f"missing: {' '.join(missing)} (Debian: apt install {' '.join(missing)})" if missing else ""


def companions() -> list[dict[str, str]]:
    """The git companions of companions.toml: tables with name, url, build_arg, where."""
    listed = tomllib.loads((IMAGE / "companions.toml").read_text(encoding="utf-8"))["companion"]
    return [one for one in listed if one["kind"] != "npm"]


class Images:
    """Images in a store of their own.

    Args: root: directory of the store; made if missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc").mkdir(parents=True, exist_ok=True)
        self.env = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": str(root / "etc" / "containers.conf"),
            "STORAGE_DRIVER": os.environ.get("MPB_STORAGE_DRIVER", "overlay"),
        }
        (root / "etc" / "containers.conf").write_text(ENGINE_CONF, encoding="utf-8")

    def argv(self, tool: str, *args: str | Path) -> list[str]:
        """The command line of `buildah` or `podman` on this store, in its own mount namespace."""
        store = ["--root", self.root / "store", "--runroot", self.root / "run"]
        if tool == "podman":
            store += ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "crun"]
        return ["unshare", "--mount", "sh", "-c", ALONE, "sh", tool, *map(str, store), *map(str, args)]

    def call(self, tool: str, *args: str | Path) -> str:
        """Run it and return its output. Raise CalledProcessError if it fails."""
        done = subprocess.run(self.argv(tool, *args), env=self.env, text=True, stdout=subprocess.PIPE, check=True)
        return done.stdout.strip()

    def has(self, tag: str) -> bool:
        """Whether there is an image of that name."""
        return subprocess.run(self.argv("buildah", "inspect", "--type", "image", tag), env=self.env, check=False,
                              capture_output=True).returncode == 0  # fmt: skip

    def import_base(self) -> None:
        """Store a minimal Debian under the name in FROM, unless it is there."""
        if self.has(BASE):
            return
        tar = self.root / "trixie.tar"
        if not tar.exists():
            exclude = "path-exclude=/usr/share/{doc,man,locale,info}/*"
            made = tar.with_suffix(".new.tar")
            subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--dpkgopt={exclude}", "trixie", made],
                           check=True)  # fmt: skip
            made.rename(tar)
        container = self.call("buildah", "from", "scratch")
        self.call("buildah", "add", "--quiet", container, tar, "/")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.call("buildah", "config", "--cmd", "bash", "--env", f"PATH={path}", container)
        self.call("buildah", "commit", "--quiet", container, BASE)
        self.call("buildah", "rm", container)

    def build(self, dockerfile: str, tag: str, args: Mapping[str, str], target: str = "") -> None:
        """Build `devbox/image/<dockerfile>` of this repository as `tag`; output goes to this process's streams."""
        options: list[str | Path] = ["bud", "--isolation", "chroot", "--network", "host", "--pull=never", "--layers"]
        options += ["--ignorefile", REPO / ".dockerignore", "--file", IMAGE / dockerfile, "--tag", tag]
        options += [part for pair in args.items() for part in ("--build-arg", "=".join(pair))]
        options += ["--target", target] if target else []
        subprocess.run(self.argv("buildah", *options, *self.outside(), REPO), env=self.env, check=True)

    def outside(self) -> list[str | Path]:
        """The mounts of the stand-ins for everything outside the registries, and of this machine's certificates."""
        mounts = {self.root / "companions": "/run/companions", self.root / "etc" / "gitconfig": "/etc/gitconfig"}
        (self.root / "etc" / "gitconfig").write_text(self.stub_companions(), encoding="utf-8")
        bundle = os.environ.get("SSL_CERT_FILE")
        if bundle:
            pip, npm = self.root / "etc" / "pip.conf", self.root / "etc" / "npmrc"
            pip.write_text("[global]\ncert = /run/ca.crt\n", encoding="utf-8")
            npm.write_text("cafile=/run/ca.crt\n", encoding="utf-8")
            mounts |= {Path(bundle): "/run/ca.crt", pip: "/etc/pip.conf", npm: "/root/.npmrc"}
        volumes = [f"{source}:{inside}:ro" for source, inside in mounts.items()]
        if bundle:  # uv reads the system's directory of certificates and has no setting for one more
            uv = self.root / "etc" / "uv.toml"
            uv.write_text("system-certs = true\n", encoding="utf-8")
            volumes += [f"{bundle}:/etc/ssl/certs/00000000.0:ro", f"{uv}:/etc/uv/uv.toml:ro"]
        return [part for volume in volumes for part in ("--volume", volume)]

    def stub_companions(self) -> str:
        """Make the stand-ins; return the git configuration that puts them in place of the real repositories."""
        given = os.environ.get("MPB_COMPANIONS")
        lines = ["[safe]", "\tdirectory = *"]
        for one in companions():
            bare = self.root / "companions" / f"{one['name']}.git"
            real = Path(given) / f"{one['name']}.git" if given else None
            if real and real.exists():
                shutil.rmtree(bare, ignore_errors=True)
                subprocess.run(["git", "clone", "--quiet", "--bare", real, bare], check=True)
            else:
                stub_repository(bare, one["name"])
            lines += [f'[url "file:///run/companions/{one["name"]}.git"]', f"\tinsteadOf = {one['url']}"]
        return "\n".join([*lines, ""])

    def head(self, name: str) -> str:
        """The commit of a stand-in's main branch."""
        argv = ["git", "--git-dir", str(self.root / "companions" / f"{name}.git"), "rev-parse", "main"]
        return subprocess.run(argv, check=True, text=True, capture_output=True).stdout.strip()

    def run_argv(self, tag: str, *command: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs a container as docker would: pid 1, entry point, namespaces."""
        return self.argv("podman", "run", "--rm", "--pull=never", *options, tag, *command)

    def config(self, tag: str) -> dict[str, object]:
        """The image's configuration (Entrypoint, Env, Cmd ...)."""
        inspected = json.loads(self.call("buildah", "inspect", "--type", "image", tag))
        config: dict[str, object] = inspected["OCIv1"]["config"]
        return config

    def build_base(self) -> None:
        """Build `pi-devbox:base`."""
        self.import_base()
        self.outside()
        self.build("Dockerfile.base", f"{TAG}:base", self.refs("base"))

    def refs(self, where: str) -> dict[str, str]:
        """The build arguments for the companions of an image: commits, as in CI, so that cached layers are right.

        One stays at its branch.
        """
        asked = [one for one in companions() if one["where"] == where and one["name"] != AT_BRANCH]
        return {one["build_arg"]: self.head(one["name"]) for one in asked}

    def build_variant(self, target: str) -> None:
        """Build `pi-devbox:pi` or `pi-devbox:studio`."""
        self.outside()
        self.build(
            "Dockerfile.variant", f"{TAG}:{target}", {"BASE_IMAGE": f"{TAG}:base", **self.refs("variant")}, target
        )


def stub_repository(bare: Path, name: str) -> None:
    """Make a bare repository with one commit on main; any commit can be fetched from it, as from the real hosts.

    The same files always give the same commit.
    """
    work = bare.with_suffix(".work")
    for old in (bare, work):
        shutil.rmtree(old, ignore_errors=True)
    for path, text in {"README.md": f"# {name}\n", **STUBS.get(name, {})}.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text, encoding="utf-8")
    who = ["-c", "user.name=stub", "-c", "user.email=stub@localhost"]
    when = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-q", "-m", "stub"]):
        subprocess.run(["git", "-C", work, *argv], check=True, env={**os.environ, **when})
    subprocess.run(["git", "clone", "-q", "--bare", work, bare], check=True)
    subprocess.run(["git", "--git-dir", bare, "config", "uploadpack.allowAnySHA1InWant", "true"], check=True)
    shutil.rmtree(work)


def default_store() -> Images:
    """The store that the environment names."""
    return Images(Path(os.environ.get("MPB_IMAGE_STORE") or REPO / ".dev" / "image"))


def main(argv: Sequence[str]) -> int:
    """Build images, or run a command in one."""
    if lack := lacking():
        print(lack, file=sys.stderr)
        return 1
    images = default_store()
    match list(argv):
        case ["run", tag, *rest]:
            command = rest[1:] if rest[:1] == ["--"] else rest
            return subprocess.run(images.run_argv(tag, *command), env=images.env, check=False).returncode
        case ["base" | "all" as what]:
            images.build_base()
            for target in ("pi", "studio") if what == "all" else ():
                images.build_variant(target)
        case ["pi" | "studio" as target]:
            images.build_variant(target)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
