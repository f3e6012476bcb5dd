"""The workflows pass the linters of GitHub Actions, and contain no logic."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pi_devbox.image.cli import command_image

REPO = Path(__file__).resolve().parents[3]
WORKFLOWS = [REPO / ".github/workflows/image.yml"]  # tests/unit/test_forges.py has the others
TOOLS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "tool",
    [("actionlint", "-shellcheck=", "-pyflakes="), ("check-jsonschema", "--builtin-schema", "vendor.github-workflows")],
    ids=lambda tool: str(tool[0]),
)
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_linters(tool: tuple[str, ...], path: Path) -> None:
    done = subprocess.run([TOOLS / tool[0], *tool[1:], path], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_step_runs_one_command_and_decides_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"^ *(?:- )?run: (.*)$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        assert command.startswith(("pi-devbox image ", "python -m pip install ")), command
        assert not re.search(r"[|;&`$]", command), command
        assert "${{" not in command  # untrusted text would become a command
        if command.startswith("pi-devbox"):
            assert command.split()[2] in command_image.commands
    assert not re.search(r"^ *(?:- )?if:", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_secret_can_be_part_of_what_jobs_hand_on(path: Path) -> None:
    """A runner drops an output that contains a secret, and the registry's user is part of an image's name."""
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"REGISTRY_TOKEN", "GITEA_BUILD_TOKEN", "GITHUB_TOKEN"}
    assert text.count("vars.REGISTRY_USER") == 4
