"""Build with a real buildah, push to a real registry, and plan from its answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devbox.tests.image.checkout import SHA, make_checkout
from devbox.tests.needs import BIN, require_program
from tests.proctools import eventually, free_port

STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
REGISTRY = """
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "127.0.0.1:%d"}
"""
INDEX = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A running registry's host:port."""
    port = free_port()
    config = folder / "registry.yml"
    config.write_text(REGISTRY % (folder / "registry", port), encoding="utf-8")
    with subprocess.Popen(["docker-registry", "serve", config], stderr=subprocess.DEVNULL) as process:

        def answers() -> bool:
            assert process.poll() is None, "the registry ended"
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/v2/", timeout=5).status_code == 200
            return False

        try:
            eventually(answers, what="an answer of the registry")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def test_from_nothing_to_published_images(tmp_path: Path) -> None:
    require_program("buildah", "buildah")
    require_program("docker-registry", "docker-registry")
    if os.geteuid() != 0:
        pytest.skip("buildah without root needs user namespaces of its own")
    root = make_checkout(tmp_path / "checkout")
    companions = [{"name": name, "ref": ref, "value": SHA, "how": "git"} for name, ref in
                  (("toolkit", "main"), ("fork", "main"), ("studio", "v1"))]  # fmt: skip
    known = tmp_path / "resolved.json"
    known.write_text(json.dumps({"companions": companions}), encoding="utf-8")
    (tmp_path / "storage.conf").write_text(STORAGE.format(tmp_path), encoding="utf-8")
    with registry(tmp_path) as host:
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PI_DEVBOX_"))},
            **{"IMAGE": f"{host}/me/box", "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf")},
            **{"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"},
        }

        def run(*args: str, **more: str) -> str:
            argv = [str(BIN / "pi-devbox"), "image", *args]
            done = subprocess.run(argv, cwd=root, env=env | more, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        plan = run("plan", "--resolved", str(known), "--release", "v1.0.0", "--json")
        run("build", "all", "--builder", "buildah", PI_DEVBOX_PLAN=plan)
        run("publish", "--builder", "buildah", PI_DEVBOX_PLAN=plan)
        again = json.loads(run("plan", "--resolved", str(known), "--json"))
        tags = httpx.get(f"http://{host}/v2/me/box/tags/list").json()["tags"]
        index = httpx.get(f"http://{host}/v2/me/box/manifests/latest-studio", headers={"Accept": INDEX}).json()
    assert [one["build"] for one in (again["base"], *again["variants"])] == [False] * 3
    published = {"v1.0.0", "latest", "v1.0.0-studio", "latest-studio"}
    assert set(tags) == published | {again["base"]["tag"], *(one["tag"] for one in again["variants"])}
    assert {one["platform"]["architecture"] for one in index["manifests"]} == {"amd64", "arm64"}
