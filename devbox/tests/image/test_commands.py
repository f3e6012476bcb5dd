"""`pi-devbox image` as a process, in a checkout whose companions lie on a real git server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devbox.tests.image.checkout import companions_toml, make_checkout
from devbox.tests.image.gitserver import GitServer, Repository
from devbox.tests.image.stub import Say, Stub
from pi_devbox.image.cli import command_image
from pi_devbox.image.commands import Command
from pi_devbox.image.runner import BuildFailed, run_units

PROGRAM = Path(sys.executable).with_name("pi-devbox")
HIDDEN = ("GIT_", "GITHUB_", "GITEA_", "REGISTRY_", "PI_DEVBOX_", "IMAGE")
INDEX = {"Content-Type": "application/vnd.oci.image.index.v1+json"}


class Box:
    """A checkout, its companions on a git server, and its registry.

    Attributes: root, server, companions (name -> repository), registry, out ($GITHUB_OUTPUT), env.
    """

    def __init__(self, root: Path, server: GitServer, registry: Stub) -> None:
        self.root, self.server, self.registry, self.out = root, server, registry, root / "out"
        self.companions = {name: Repository(server.folder / f"{name}.git") for name in ("toolkit", "fork", "studio")}
        make_checkout(root / "checkout", self.table())
        clean = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        self.env = {**clean, "IMAGE": f"{registry.host}/me/box", "GITHUB_OUTPUT": str(self.out)}

    def table(self, ref: str = "main") -> list[tuple[str, ...]]:
        """The companions, as in companions.toml."""
        where = {"toolkit": "base", "fork": "variant", "studio": "variant"}
        return [
            (name, "git", f"{self.server.url}/{name}.git", ref, where[name], f"{name.upper()}_REF") for name in where
        ]

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`pi-devbox image` with these arguments."""
        argv = [str(PROGRAM), "image", *args]
        where = self.root / "checkout" / "src"  # it finds the checkout around it
        return subprocess.run(
            argv, cwd=where, env=self.env | env, capture_output=True, text=True, timeout=60, check=False
        )

    def json(self, *args: str, **env: str) -> Any:
        """Run a command that must succeed; return its JSON."""
        done = self.run(*args, "--json", **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def publish(self, *tags: str) -> None:
        """Put these tags into the registry."""
        for tag in tags:
            self.registry.script[f"/v2/me/box/manifests/{tag}"] = [Say(200, headers=INDEX)]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with GitServer(tmp_path / "srv") as server, Stub({}) as registry:
        yield Box(tmp_path, server, registry)


def tags(plan: Any) -> list[str]:
    return [plan["base"]["tag"], *(one["tag"] for one in plan["variants"])]


def needs(plan: Any) -> list[bool]:
    return [plan["base"]["build"], *(one["build"] for one in plan["variants"])]


def test_from_a_moved_companion_to_what_is_built(box: Box) -> None:
    first = box.json("plan")
    assert needs(first) == [True, True, True]
    assert first["warnings"] == []
    box.publish(*tags(first))
    again = box.json("plan")
    assert tags(again) == tags(first)
    assert needs(again) == [False, False, False]
    box.companions["studio"].commit("moved")
    assert needs(box.json("plan")) == [False, False, True]
    sha = box.companions["toolkit"].commit("rewritten", onto=None)
    moved = box.json("plan")
    assert needs(moved) == [True, True, True]
    assert moved["base"]["args"] == {"TOOLKIT_REF": sha}
    assert box.run("base-tag").stdout == f"{moved['base']['tag']}\n"


def test_a_git_server_that_is_down_costs_a_build_each_time_and_misses_none(box: Box) -> None:
    """The next outage must not find an image made in an earlier one: the companion may have moved since."""
    (box.root / "srv").rename(box.root / "away")
    first = box.run("plan", "--json", "--timeout", "1")
    plan = json.loads(first.stdout)
    assert first.returncode == 0
    assert needs(plan) == [True, True, True]
    assert plan["base"]["args"] == {"TOOLKIT_REF": "main"}
    assert "toolkit: main could not be resolved" in first.stderr
    assert "its name is used, and forces a build" in first.stderr
    assert [one["how"] for one in plan["companions"]] == ["name"] * 3
    box.publish(*tags(plan))
    second = box.json("plan", "--timeout", "1")
    assert needs(second) == [True, True, True]
    assert not set(tags(plan)) & set(tags(second))
    (box.root / "away").rename(box.root / "srv")
    assert needs(box.json("plan")) == [True, True, True]


def test_a_registry_that_is_down_costs_a_build(box: Box) -> None:
    box.registry.script |= {f"/v2/me/box/manifests/{tag}": [Say(503)] for tag in tags(box.json("plan"))}
    done = box.run("plan", "--timeout", "1")
    assert done.returncode == 0
    assert "the registry gave no answer" in done.stderr
    assert done.stdout.count("build: ") == 3


def test_the_jobs_of_a_workflow(box: Box) -> None:
    """As .github/workflows/image.yml runs them: resolve, plan, build the base, the variants, publish."""
    found = box.run("resolve", "--json", "--github-output")
    (box.root / "resolved.json").write_text(found.stdout, encoding="utf-8")
    asked = len(box.server.asked)
    env = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1.2.3"}
    assert box.run("plan", "--resolved", str(box.root / "resolved.json"), "--github-output", **env).returncode == 0
    outputs = dict(line.split("=", 1) for line in box.out.read_text(encoding="utf-8").splitlines())
    assert outputs["need_base"] == outputs["need_variants"] == outputs["all_resolved"] == "true"
    assert outputs["toolkit_ref"] == box.companions["toolkit"].id_of("main")
    assert outputs["publish_tags"] == "v1.2.3 latest v1.2.3-studio latest-studio"
    plan = {"PI_DEVBOX_PLAN": outputs["plan"]}
    base = box.run("build", "base", "--builder", "buildx", "--dry-run", **plan)
    assert base.stdout.splitlines() == [line for line in base.stdout.splitlines() if outputs["base_tag"] in line]
    assert len(base.stdout.splitlines()) == 1
    both = box.run("build", "variants", "--builder", "buildx", "--dry-run", **plan)
    assert [tag in line for tag, line in zip(outputs["variant_tags"].split(), both.stdout.splitlines(), strict=True)]
    twice = box.run("build", "base", "--force", "--builder", "buildx", "--dry-run", **plan)
    assert (twice.returncode, twice.stdout) == (2, "")
    last = box.run("publish", "--builder", "buildx", "--dry-run", **plan)
    assert "--tag" in last.stdout
    assert "latest-studio" in last.stdout
    assert len(box.server.asked) == asked  # what was resolved once stays
    (box.root / "checkout/src/code.py").write_text("changed", encoding="utf-8")
    changed = box.run("build", "base", "--builder", "buildx", "--dry-run", **plan)
    assert changed.returncode == 78
    assert "but the files here make it" in changed.stderr


def test_a_plan_that_did_not_arrive_does_not_ask_for_another_one(box: Box) -> None:
    for command in (["build", "all"], ["publish"]):
        done = box.run(*command, "--builder", "buildx", "--dry-run", PI_DEVBOX_PLAN="")
        assert (done.returncode, done.stdout) == (78, "")
        assert "the job that plans passed nothing on" in done.stderr
    assert not box.server.asked


def test_only_what_can_have_been_built_is_published(box: Box) -> None:
    publish = ["publish", "--builder", "buildx", "--dry-run"]
    assert box.run(*publish).returncode == 0
    (box.root / "srv").rename(box.root / "away")
    plan = box.run("plan", "--json", "--timeout", "1").stdout
    (box.root / "plan.json").write_text(plan, encoding="utf-8")
    done = box.run(*publish, "--resolved", str(box.root / "plan.json"))
    assert (done.returncode, done.stdout) == (78, "")
    assert re.search(r" pi-\w+-unresolved-\w+, .* can't have been built", done.stderr)
    assert "--plan plan.json" in done.stderr
    assert box.run(*publish, PI_DEVBOX_PLAN=plan).returncode == 0


def test_mistakes_are_said_before_anybody_is_asked(box: Box) -> None:
    few = str(_only_git(box))
    assert box.run("build", "nothing", "--builder", "buildx").returncode == 2
    assert box.run("build", "base", PATH=few).returncode == 78
    assert not box.server.asked


def test_what_is_there_is_not_built(box: Box) -> None:
    plan = box.json("plan")
    box.publish(*tags(plan))
    done = box.run("build", "all", "--builder", "buildx", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("nothing to build, the registry has it") == 3
    assert len(box.run("build", "all", "--builder", "buildx", "--dry-run", "--anyway").stdout.splitlines()) == 3
    forced = box.run("build", "all", "--builder", "buildx", "--dry-run", PI_DEVBOX_FORCE="true")
    assert forced.stdout.count("--no-cache") == 3
    for unset in ("", "false"):
        assert box.run("build", "all", "--builder", "buildx", "--dry-run", PI_DEVBOX_FORCE=unset).stdout == ""


def _fake_docker(box: Box, script: str) -> dict[str, str]:
    folder = box.root / "bin"
    folder.mkdir()
    (folder / "docker").write_text(f'#!/bin/sh\necho "$*" >> {box.root}/calls\n{script}\n', encoding="utf-8")
    (folder / "docker").chmod(0o755)
    return {"PATH": f"{folder}:{box.env['PATH']}"}


def test_a_unit_that_fails_is_tried_again(tmp_path: Path) -> None:
    mark = tmp_path / "once"
    flaky = Command(("sh", "-c", f"[ -e {mark} ] || {{ touch {mark}; exit 7; }}"))
    tidy, after = Command(("false",), may_fail=True), Command(("sh", "-c", f"rm {mark}"))
    said: list[str] = []
    slept: list[float] = []
    run_units([(tidy, flaky), (after,)], tmp_path, attempts=3, say=said.append, sleep=slept.append)
    assert slept == [5.0]
    assert [line for line in said if line.startswith("ended")] == ["ended with 7 (attempt 1 of 3), retrying in 5 s"]
    assert said.count("$ false") == 2
    assert not mark.exists()


def test_a_unit_that_keeps_failing(tmp_path: Path) -> None:
    slept: list[float] = []
    with pytest.raises(BuildFailed, match=r"`false` ended with 1 \(attempt 3 of 3\)") as caught:
        run_units([(Command(("false",)),)], tmp_path, attempts=3, say=lambda _: None, sleep=slept.append)
    assert (slept, caught.value.exit_code) == ([5.0, 15.0], 1)


def test_an_untracked_input_is_named_and_not_built(box: Box) -> None:
    env = _fake_docker(box, '[ "$2" != build ] || find src >> "$0.context"')
    tag = box.json("plan")["base"]["tag"]
    (box.root / "checkout/src/note.txt").write_text("untracked")
    done = box.run("build", "base", **env)
    assert done.returncode == 0
    assert "does not track them: src/note.txt. Hint: git add" in done.stderr
    assert (box.root / "bin/docker.context").read_text().split() == ["src", "src/code.py"]
    assert tag in (box.root / "calls").read_text()


def test_a_build_that_keeps_failing(box: Box) -> None:
    env = _fake_docker(box, '[ "$2" != build ]')
    done = box.run("build", "all", "--attempts", "1", **env)
    assert done.returncode == 1
    assert "ended with 1 (attempt 1 of 1). Hint:" in done.stderr
    calls = (box.root / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[:2] == ["buildx version", "version"]
    assert calls[2].endswith("--push .")
    assert len(calls) == 3  # no variant without its base


def test_no_builder_at_all(box: Box) -> None:
    done = box.run("build", "base", PATH=str(_only_git(box)))
    assert done.returncode == 78
    assert "neither docker" in done.stderr


def _only_git(box: Box) -> Path:
    folder = box.root / "few"
    folder.mkdir()
    found = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "git").symlink_to(found)
    return folder


def test_a_plan_from_the_registrys_list(box: Box) -> None:
    plan = box.json("plan")
    facts = box.root / "facts.json"
    facts.write_text(json.dumps({"Repository": "x", "Tags": tags(plan)[:2]}), encoding="utf-8")
    asked = len(box.registry.asked)
    assert needs(box.json("plan", "--registry-facts", str(facts))) == [False, False, True]
    assert len(box.registry.asked) == asked


def test_one_platform_is_another_plan(box: Box) -> None:
    one = box.json("plan", "--platform", "linux/arm64")
    assert one["platforms"] == ["linux/arm64"]
    assert not set(tags(one)) & set(tags(box.json("plan")))
    assert box.run("plan", "--platform", "arm64").returncode == 78


def test_no_secret_is_shown(box: Box) -> None:
    table = [("toolkit", "gitea", f"{box.server.url}/me/toolkit.git", "main", "base", "TOOLKIT_REF"), *box.table()[1:]]
    host = box.server.url.removeprefix("http://")
    path = box.root / "checkout/devbox/image/companions.toml"
    path.write_text(companions_toml(table, f'"{host}" = "GITEA_TOKEN"'), encoding="utf-8")
    env = {"GITEA_TOKEN": "hush-1", "REGISTRY_USER": "me", "REGISTRY_TOKEN": "hush-2"}
    for command in (["resolve"], ["plan", "--github-output"], ["build", "all", "--dry-run", "--builder", "buildx"]):
        done = box.run(*command, "--timeout", "1", **env)
        assert done.returncode == 0, done.stderr
        assert "hush" not in done.stdout + done.stderr
    assert "hush" not in box.out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "status", "complaint"),
    [
        (["plan", "--root", "/"], 78, "companions.toml can't be read"),
        (["plan", "--image", "Not An Image"], 78, "is not an image name"),
        (["plan", "--release", "a b"], 2, "is not a version"),
        (["plan", "--resolved", "/etc/hostname"], 78, "resolve --json"),
        (["build", "nothing", "--dry-run", "--builder", "buildx"], 2, "is not one of all, variants, base, pi, studio"),
        (["build", "base", "--plan", "/etc/hostname"], 78, "is not a plan"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes(box: Box, args: list[str], status: int, complaint: str) -> None:
    done = box.run(*args)
    assert done.returncode == status, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_of_a_checkout(tmp_path: Path) -> None:
    argv = [str(PROGRAM), "image", "plan"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert "Hint: run it in a checkout, or name it with --root" in done.stderr


def test_ctrl_c_ends_it_at_once(box: Box) -> None:
    stall = Say(fault="hang")
    with Stub({f"/{name}.git/info/refs": stall for name in box.companions}) as stub:
        box.server.url = stub.url
        path = box.root / "checkout/devbox/image/companions.toml"
        path.write_text(companions_toml(box.table()), encoding="utf-8")
        argv = [str(PROGRAM), "image", "plan", "--root", str(box.root / "checkout")]
        with subprocess.Popen(argv, env=box.env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            stub.wait_asked(3, 20)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_every_command_has_help(box: Box) -> None:
    for name in command_image.commands:
        done = box.run(name, "--help")
        assert done.returncode == 0
        assert "Usage: pi-devbox image" in done.stdout


@pytest.mark.parametrize("lacking", ["httpx", "msgspec"])
@pytest.mark.parametrize("command", ["resolve", "base-tag", "plan", "build", "publish"])
def test_without_the_extra_it_says_what_to_install(box: Box, command: str, lacking: str) -> None:
    script = (
        f"import sys; sys.modules['{lacking}'] = None; sys.argv[0] = 'pi-devbox';"
        "from pi_devbox.cli import main; sys.exit(main())"
    )
    argv = [sys.executable, "-c", script, "image", command, *(["all"] if command == "build" else [])]
    done = subprocess.run(argv, env=box.env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"needs {lacking}" in done.stderr
    assert "pip install './devbox[image]' in a checkout" in done.stderr
