"""The documents agree with the programs (exit codes, variables, commands), and no link is broken."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from devbox.tests.imagebox import REPO
from pi_devbox import errors, outcome
from pi_devbox.dotwatch.cli import INTERVAL_VARIABLE, dot_watch
from pi_devbox.expose.cli import DEFAULT_PORT, studio_expose
from pi_devbox.image.cli import command_image
from pi_devbox.image.registry import TOKEN, USER
from pi_devbox.image.resolve import RUNNER
from pi_devbox.root import root

DEVBOX = REPO / "devbox"
MANUAL = DEVBOX / "docs" / "devbox.md"
PAGES = sorted([*DEVBOX.glob("*.md"), *DEVBOX.glob("docs/*.md")])
EXIT_CODES = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
PROGRAMS = {"dot-watch": dot_watch, "studio-expose": studio_expose, "pi-devbox image": command_image}


def rows(page: Path) -> list[list[str]]:
    """The cells of all table rows."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_exit_codes_are_documented_with_their_numbers() -> None:
    table = {row[1]: row[0] for row in rows(MANUAL) if row[1].startswith("EXIT_")}
    assert table == {name: str(value) for name, value in EXIT_CODES.items()}


def test_variables_are_documented_with_their_programs_and_defaults() -> None:
    table = {name: row for row in rows(MANUAL) if len(row) == 4 for name in re.findall(r"`([A-Z_]+)`", row[0])}
    options = {one for command in command_image.commands.values() for param in command.params for one in read_by(param)}
    read = {INTERVAL_VARIABLE, "STUDIO_PORT", "IMAGE", USER, TOKEN, RUNNER, "GITEA_TOKEN", "PI_DEVBOX_PLAN"}
    assert set(table) == read | options | {outcome.DEBUG_VARIABLE}
    assert table["STUDIO_PORT"][1] == str(DEFAULT_PORT)
    assert table[INTERVAL_VARIABLE][2] == "`dot-watch`"


def read_by(param: click.Parameter) -> list[str]:
    """The variables that an option falls back to."""
    return [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_names_real_exit_codes_only(name: str) -> None:
    text = (PROGRAMS[name].help or "") + (PROGRAMS[name].epilog or "")
    numbers = {int(number) for number in re.findall(r"\b(\d+)\b", text.split("Exit codes:")[1])}
    terminated = 128 + 15
    assert {2, 78} <= numbers <= {*EXIT_CODES.values(), terminated}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_and_commands_in_the_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"pi-devbox image ([a-z][a-z-]+)", text):
        assert command in command_image.commands, command
    assert list(root.commands) == ["image"]
    for path in re.findall(r"`(devbox/[\w/.-]+)`", text):
        assert (REPO / path).exists(), path


@pytest.mark.parametrize("page", [*PAGES, REPO / "README.md"], ids=lambda page: str(page.relative_to(REPO)))
def test_no_link_is_broken(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
