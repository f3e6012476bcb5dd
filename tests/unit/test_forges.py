"""The files that Gitea, GitHub, pre-commit and pip read are valid and in step with the project."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import dev
from tests import pictures

REPO = Path(dev.__file__).parent
TOOLS = Path(sys.executable).parent
CHECKS = REPO / ".github/workflows/checks.yml"


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def project(folder: str = "") -> dict[str, Any]:
    return tomllib.loads((REPO / folder / "pyproject.toml").read_text(encoding="utf-8"))


def lint(*argv: str | Path) -> None:
    done = subprocess.run(
        [TOOLS / argv[0], *argv[1:]], cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- workflows and templates -----------------------------------------------------------------------------


def test_one_folder_serves_both_forges() -> None:
    """Gitea reads .github/workflows only while there is no .gitea/workflows."""
    assert not (REPO / ".gitea").exists()
    assert [path.name for path in sorted(CHECKS.parent.iterdir())] == ["checks.yml", "image.yml"]


@pytest.mark.parametrize("path", sorted(CHECKS.parent.iterdir()), ids=lambda path: path.name)
def test_actions_are_of_the_node24_generation(path: Path) -> None:
    """GitHub has no older node; Gitea's runner knows node24, and takes it from the job's image."""
    first = {"actions/checkout": 5, "actions/setup-python": 6, "docker/login-action": 4}
    first |= {"docker/setup-qemu-action": 4, "docker/setup-buildx-action": 4, "actions/upload-artifact": 6}
    used = re.findall(r"uses: (\S+)@v(\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(used) == path.read_text(encoding="utf-8").count("uses:")
    assert not [name for name, version in used if int(version) < first[name]]


def test_the_linters_of_workflows_find_nothing() -> None:
    lint("actionlint", "-shellcheck=", "-pyflakes=", CHECKS)
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", CHECKS)


def test_the_checks_run_on_the_oldest_and_the_newest_python() -> None:
    versions = re.findall(r":: (3\.\d+)\n", "\n".join([*project()["project"]["classifiers"], ""]))
    assert load(CHECKS)["jobs"]["fast"]["strategy"]["matrix"]["python"] == [versions[0], versions[-1]]
    assert project()["project"]["requires-python"] == f">={versions[0]}"


def test_a_step_runs_one_command_and_decides_nothing() -> None:
    steps = [step for job in load(CHECKS)["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert {"python dev.py test --fast", "bash .ci/run"} <= set(commands)
    assert not [command for command in commands if re.search(r"[|;&`$\n]", command)]
    assert not [step for step in steps if "if" in step]


def test_the_screenshots_are_kept() -> None:
    steps = load(CHECKS)["jobs"]["all"]["steps"]
    (check,) = [step for step in steps if step.get("run") == "bash .ci/run"]
    (keep,) = [step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert check["env"][pictures.VARIABLE] == keep["with"]["path"]
    assert steps.index(check) < steps.index(keep)


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_issue_forms_are_valid(name: str) -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.github-issue-forms", REPO / ".github/ISSUE_TEMPLATE" / name)


def test_the_choice_of_issue_forms_is_valid() -> None:
    config = REPO / ".github/ISSUE_TEMPLATE/config.yml"
    lint("check-jsonschema", "--builtin-schema", "vendor.github-issue-config", config)


# -- pre-commit and dependency groups --------------------------------------------------------------------


def test_pre_commit_runs_the_linters_of_dev_py() -> None:
    lint("pre-commit", "validate-config", ".pre-commit-config.yaml")
    (repository,) = load(REPO / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["name"]: tuple(hook["entry"].split()) for hook in repository["hooks"]}
    assert hooks == {name: (f".dev/venv/bin/{program}", *rest) for name, (program, *rest) in dev.LINTERS.items()}


def wanted(requirement: str) -> str:
    """The normalised name of a requirement."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_constraints_pin_all_that_development_needs_and_name_no_host() -> None:
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines), lines
    pinned = {wanted(line) for line in lines}
    for folder in ("", "devbox"):
        config = project(folder)
        needed = [*config["project"]["dependencies"], *config["project"]["optional-dependencies"].get("image", [])]
        for group in config["dependency-groups"].values():
            needed += [item for item in group if isinstance(item, str)]
        assert {wanted(item) for item in needed} <= pinned


@pytest.mark.parametrize(("folder", "package"), [("", "src/mempalace_broker"), ("devbox", "src/pi_devbox")])
def test_the_changelog_begins_with_this_version(folder: str, package: str) -> None:
    heading = re.search(r"^## (\S+)", (REPO / folder / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    version = re.search(r'__version__ = "(.+)"', (REPO / folder / package / "__init__.py").read_text(encoding="utf-8"))
    assert heading is not None
    assert version is not None
    assert heading[1] == version[1]
