"""Which installer installs mempalace."""

from __future__ import annotations

import pytest

from mempalace_broker.cli.setup.machine.installers import FOLDER, choose_installation

HOME = "/home/me"
UV_TOOL = f"{HOME}/.local/share/uv/tools/mempalace-broker/bin/python"
PIPX_VENV = f"{HOME}/.local/share/pipx/venvs/mempalace-broker/bin/python"


@pytest.mark.parametrize(
    ("uv", "pipx", "own", "words"),
    [
        ("uv", "pipx", UV_TOOL, "uv tool install mempalace"),
        ("uv", "pipx", PIPX_VENV, "pipx install mempalace"),
        ("uv", "pipx", "/usr/bin/python3", "uv tool install mempalace"),
        ("uv", "", PIPX_VENV, "uv tool install mempalace"),
        ("", "/opt/pipx", UV_TOOL, "/opt/pipx install mempalace"),
    ],
)
def test_the_installer_that_installed_us_comes_first(uv: str, pipx: str, own: str, words: str) -> None:
    found = choose_installation(uv, pipx, own, HOME)
    assert (found.words, found.folder) == (words, "")


def test_without_one_it_is_an_environment_of_ours() -> None:
    found = choose_installation("", "", "/usr/bin/python3", "/home/big o")
    folder = f"/home/big o/{FOLDER}"
    assert found.folder == folder
    assert [command[0] for command in found.commands] == ["/usr/bin/python3", f"{folder}/bin/python"]
    assert f"/usr/bin/python3 -m venv --clear '{folder}' && '{folder}/bin/python' -m pip install " in found.words
