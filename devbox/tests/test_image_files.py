"""The image's files: linted, consistent with each other and with companions.toml; the build scripts on real git."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devbox.tests.imagebox import IMAGE, LIB, REPO, ImageBox
from devbox.tests.imagebuild import companions

BASE, VARIANT = ((IMAGE / name).read_text() for name in ("Dockerfile.base", "Dockerfile.variant"))
COMPOSE, README = IMAGE / "compose.yaml", REPO / "devbox" / "README.md"
EXAMPLE = (IMAGE / ".env.example").read_text()
SHOWN = re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE)
SCRIPTS = sorted([*IMAGE.glob("*.sh"), *IMAGE.glob("rootfs/**/*.sh")])
CLONE = f"{LIB}/clone-companion.sh"


def tool(name: str, *args: str | Path, cwd: Path = REPO) -> None:
    """Run a linter of the environment; it must find nothing."""
    done = subprocess.run([Path(sys.executable).parent / name, *args], cwd=cwd, text=True, capture_output=True, check=False)  # fmt: skip # noqa: E501
    assert done.returncode == 0, done.stdout + done.stderr


def settings(folder: Path, values: str = "") -> dict[str, Any]:
    """The service of the compose file with .env.example and more `values` as .env, as a real compose reads it."""
    compose = next((argv for argv in (["docker-compose"], ["docker", "compose"]) if works(argv)), None)
    if compose is None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail("no docker-compose (Debian: apt install docker-compose)")
        pytest.skip("no docker-compose (Debian: apt install docker-compose)")
    shutil.copy(COMPOSE, folder)
    (folder / ".env").write_text(EXAMPLE + values)
    clean = {"PATH": os.environ["PATH"], "HOME": "/home/me"}
    done = subprocess.run([*compose, "config"], cwd=folder, text=True, capture_output=True, check=False, env=clean)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    from ruamel.yaml import YAML

    found: dict[str, Any] = YAML(typ="safe").load(done.stdout)["services"]["devbox"]
    return found


def works(argv: list[str]) -> bool:
    """Whether that compose is installed."""
    if shutil.which(argv[0]) is None:
        return False
    return subprocess.run([*argv, "version"], capture_output=True, check=False).returncode == 0


# --- linters


def test_the_dockerfiles_are_clean() -> None:
    tool("hadolint", "--config", ".hadolint.yaml", "Dockerfile.base", "Dockerfile.variant", cwd=IMAGE)


def test_the_scripts_are_clean() -> None:
    assert len(SCRIPTS) >= 6
    tool("shellcheck", *SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_stop_at_the_first_error_and_can_be_run(script: Path) -> None:
    assert "\nset -euo pipefail\n" in script.read_text()
    assert os.access(script, os.X_OK)


def test_the_compose_file_is_one() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


# --- the compose file


def test_studio_is_published_on_loopback_only(tmp_path: Path) -> None:
    ports = settings(tmp_path)["ports"]
    assert ports
    for port in ports:
        where = port if isinstance(port, str) else f"{port.get('host_ip', '')}:{port['published']}"
        assert where.startswith("127.0.0.1:"), where


def test_the_image_is_the_one_that_the_readme_builds_and_is_never_pulled(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found["container_name"], found["pull_policy"]) == ("pi-devbox", "never")
    base, variant = re.findall(r"^docker build -f (\S+) -t (\S+) \.$", README.read_text(), re.MULTILINE)
    assert base == ("devbox/image/Dockerfile.base", argument(VARIANT, "BASE_IMAGE"))
    assert variant == ("devbox/image/Dockerfile.variant", found["image"])


def test_every_setting_of_the_compose_file_is_in_the_example() -> None:
    text = COMPOSE.read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", text)) | set(re.findall(r"^ +([A-Z_]+):(?: #.*)?$", text, re.MULTILINE))
    assert sorted(SHOWN) == sorted(used - {"TERM"})


def test_what_is_set_reaches_the_container(tmp_path: Path) -> None:
    inside = set(SHOWN) - {"WORKSPACE", "MEMPALACE_HOME", "DEVBOX_IMAGE"}  # compose's own
    values = {name: str(4000 + number) for number, name in enumerate(sorted(inside))}
    found = settings(tmp_path, "".join(f"{name}={value}\n" for name, value in values.items()))["environment"]
    assert found == {"TERM": "xterm-256color", **values}
    unset = {name for name, value in settings(tmp_path)["environment"].items() if value is None}
    assert unset == inside - {"STUDIO_PORT", "MEMPALACE_BROKER_DIRECT", "MEMPALACE_BROKER_NO_SPAWN"}


def test_what_the_scripts_and_the_manual_name_can_be_set() -> None:
    ours = r"\b(?:HOST_SSH|DEVBOX_[UG]ID|STUDIO|DOT_WATCH|MEMPALACE_BROKER|MEMPALACE_MCP)(?:_[A-Z]+)*\b"
    texts = [path.read_text() for path in (*SCRIPTS, REPO / "devbox/docs/devbox.md")]
    assert {name for text in texts for name in re.findall(ours, text)} - {"HOST_SSH"} <= set(SHOWN)


def test_the_palace_lies_where_the_container_s_shim_looks(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert "/home/me/.mempalace:/home/developer/.mempalace:rw" in found["volumes"]
    assert found["environment"]["MEMPALACE_BROKER_DIRECT"] == "never"
    for name, value in re.findall(r"^    (MEMPALACE_\w+)=(\w+)", BASE, re.MULTILINE):
        assert found["environment"][name] == value, "compose does not undo what the image is set to"


# --- the Dockerfiles


def argument(text: str, name: str) -> str:
    """The default of a build argument."""
    found = re.search(rf"^ARG {name}=(\S+)$", text, re.MULTILINE)
    assert found, f"no ARG {name}"
    return found[1]


@pytest.mark.parametrize("one", companions(), ids=lambda one: one["name"])
def test_companions_are_cloned_where_and_from_where_the_list_says(one: Mapping[str, str]) -> None:
    here, elsewhere = (BASE, VARIANT) if one["where"] == "base" else (VARIANT, BASE)
    text = here.replace("\\\n", " ")
    clone = rf"clone-companion\.sh {re.escape(one['url'])}\s+\"\$\{{{one['build_arg']}\}}\" /opt/"
    assert len(re.findall(clone, text)) == 1
    assert argument(here, one["build_arg"]) == one["ref"]
    assert one["url"] not in elsewhere


def test_nothing_else_is_fetched_from_outside_the_registries() -> None:
    addresses = set(re.findall(r"https?://[^\s\"]+", BASE + VARIANT))
    assert addresses == {one["url"] for one in companions()}
    assert "curl " not in (BASE + VARIANT).replace("ca-certificates curl ", "")


def test_what_is_installed_has_a_version() -> None:
    for name in ("UV_VERSION", "NODE_VERSION", "MEMPALACE_VERSION"):
        assert re.fullmatch(r"\d+\.\d+\.\d+", argument(BASE, name))
    for name in ("PI_VERSION", "PI_MCP_ADAPTER_VERSION"):
        assert re.fullmatch(r"\d+\.\d+\.\d+", argument(VARIANT, name))


def test_the_context_holds_what_the_base_is_made_of() -> None:
    inputs = tomllib.loads((IMAGE / "companions.toml").read_text())["base"]["inputs"]
    allowed = {line[1:] for line in (REPO / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed | {".dockerignore"} == set(inputs)
    assert all((REPO / path).exists() for path in inputs)


@pytest.mark.parametrize("path", sorted((IMAGE / "rootfs").rglob("*.json")), ids=lambda path: path.name)
def test_the_agents_configurations_are_json(path: Path) -> None:
    assert "mp-shim" in json.dumps(json.loads(path.read_text()))


# --- the build scripts


IDENTITY = "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x"
REMOTE = f"""
{IDENTITY}
git init -q -b main /srv/w; cd /srv/w
git commit -q --allow-empty -m empty; git tag v1
for n in gone main; do echo $n > file; git add file; git commit -qm $n; done
git clone -q --bare /srv/w /srv/r.git; git rev-parse main~1
"""


@pytest.fixture
def remote(box: ImageBox) -> str:
    """Make file:///srv/r.git with the tag v1, the branch main, and a commit between them; return the id of that."""
    return box.must("sh", "-euc", REMOTE).strip()


def test_a_companion_at_a_branch_a_tag_and_a_commit(box: ImageBox, remote: str) -> None:
    for ref, content in (("main", "main"), ("v1", ""), (remote, "gone")):
        box.must(CLONE, "file:///srv/r.git", ref, "/opt/r")
        assert box.run(["cat", "/opt/r/file"]).stdout.strip() == content
    assert box.must("git", "-C", "/opt/r", "rev-parse", "HEAD").strip() == remote
    assert box.text(f"{LIB}/companions").splitlines()[-1] == f"file:///srv/r.git {remote} {remote}"
    assert box.must("git", "-C", "/opt/r", "rev-list", "--count", "HEAD") == "1\n", "history stays outside"


FLAKY_GIT = """#!/bin/sh
for word; do
  if [ "$word" = fetch ]; then
    echo x >> /tmp/fetches
    if [ "$(wc -l < /tmp/fetches)" -lt "$FAIL_UNTIL" ]; then echo 'connection reset' >&2; exit 128; fi
  fi
done
exec /usr/bin/git "$@"
"""


@pytest.mark.parametrize(("good_attempt", "code", "fetches"), [(3, 0, 3), (99, 1, 4)])
def test_fetches_are_repeated_but_not_for_ever(
    box: ImageBox, remote: str, good_attempt: int, code: int, fetches: int
) -> None:
    box.must("sh", "-c", 'printf %s "$0" > /usr/local/bin/git; chmod 755 /usr/local/bin/git', FLAKY_GIT)
    env = {"FAIL_UNTIL": str(good_attempt), "CLONE_ATTEMPTS": "4", "CLONE_PAUSE_S": "0"}
    done = box.run([CLONE, "file:///srv/r.git", "main", "/opt/r"], env=env)
    assert (done.returncode, len(box.text("/tmp/fetches").split())) == (code, fetches)
    assert "attempt 1 of 4" in done.stderr
    if code:
        assert "git ls-remote file:///srv/r.git" in done.stderr


def test_a_companion_s_own_lock_file_counts(box: ImageBox, remote: str) -> None:
    box.must(
        "sh", "-c", "printf '#!/bin/sh\\necho \"$*\" >> /tmp/npm\\n' > /usr/local/bin/npm; chmod 755 /usr/local/bin/npm"
    )
    for files in ("package.json", "package-lock.json"):
        box.must(
            "sh",
            "-euc",
            f"{IDENTITY}; cd /srv/w; touch {files}; git add .; git commit -qm x; git push -q /srv/r.git main",
        )
        box.must(CLONE, "file:///srv/r.git", "main", "/opt/r", "--npm")
    asked = [line for line in box.text("/tmp/npm").splitlines() if "cache" not in line]
    rest = "--omit=dev --omit=peer --prefix /opt/r"
    assert asked == [f"install --no-package-lock {rest}", f"ci {rest}"]


@pytest.mark.parametrize("ref", ["", "--upload-pack=x"])
def test_an_invalid_ref_is_refused_at_once(box: ImageBox, ref: str) -> None:
    done = box.run([CLONE, "file:///srv/r.git", ref, "/opt/r"])
    assert done.returncode == 1
    assert "is not a branch, tag or commit" in done.stderr


def test_pi_gets_each_package_once_and_nothing_else(box: ImageBox) -> None:
    if box.run(["jq", "--version"]).returncode != 0:
        pytest.skip("no jq")
    env = {"PI_SETTINGS": "/tmp/settings.json"}
    box.must(
        "sh",
        "-c",
        "mkdir -p /srv/a /srv/b/skills /srv/c /srv/none; touch /srv/c/index.ts; echo '{}' > /srv/none/package.json",
    )
    box.must("sh", "-c", 'echo \'{"pi": {"extensions": []}}\' > /srv/a/package.json')
    for paths in (["/srv/a", "/srv/b"], ["/srv/b", "/srv/none", "/srv/c"]):
        done = box.run([f"{LIB}/pi-packages.sh", *paths], env=env)
        assert done.returncode == 0, done.stderr
    assert done.stderr == "pi-packages: /srv/none holds no package for pi: skipped\n"
    assert json.loads(box.text("/tmp/settings.json")) == {"packages": ["/srv/a", "/srv/b", "/srv/c"]}
    assert box.run([f"{LIB}/pi-packages.sh", "/srv/none"], env=env).returncode == 0


def test_the_build_arguments_are_documented_with_their_defaults() -> None:
    text = (REPO / "devbox" / "docs" / "devbox.md").read_text()
    declared = dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", BASE + VARIANT, re.MULTILINE))
    refs = {one["build_arg"] for one in companions()}
    for name in declared.keys() - refs - {"BASE_IMAGE"}:
        row = next((line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line), None)
        assert row is not None, f"devbox/docs/devbox.md has no row for {name}"
        assert declared[name] in row, row
