"""The documents say what the program does: settings, commands and options, exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from mempalace_broker import errors
from mempalace_broker.cli.root import root
from mempalace_broker.cli.setup.machine.agents import AGENTS
from mempalace_broker.settings import BrokerSettings, ContainerSettings, Setting, settings_of
from tests.manual import FOLDER, pages

DOCS = Path(__file__).resolve().parents[2] / "docs"
PACKAGE = "src/mempalace_broker"
EXIT_CODES = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
EMPTY = {"engine": "found by itself", "tcp": "off", "backup_dir": "the private folder"}
SETTINGS = (*settings_of(BrokerSettings), *settings_of(ContainerSettings))
COMMON = {"--palace", "--backend", "--help", "-h"}


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def commands() -> dict[str, click.Command]:
    """All commands by their full names, those of groups too."""
    found: dict[str, click.Command] = {}
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found.update({f"{name} {sub}": entry for sub, entry in command.commands.items()})
    return found


def section(name: str) -> str:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    match = re.search(rf"^##+ {re.escape(name)}\n(.*?)(?=^##+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"docs/cli.md has no section {name!r}"
    return match[1]


def test_exit_codes_are_documented_with_their_numbers() -> None:
    table = {row[1]: row[0] for row in rows((DOCS / "exit-codes.md").read_text(encoding="utf-8")) if len(row) == 3}
    assert {name: number for name, number in table.items() if name.startswith("EXIT_")} == {
        name: str(value) for name, value in EXIT_CODES.items()
    }


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented(setting: Setting) -> None:
    table = {row[0].strip("`"): row for row in rows((DOCS / "settings.md").read_text(encoding="utf-8"))}
    assert setting.name in table, f"docs/settings.md has no row for {setting.name}"
    _, variable, default, what = table[setting.name]
    assert variable == f"`{setting.env}`"
    shown = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    assert default == (shown or EMPTY.get(setting.name, "found by itself"))
    assert what


def test_no_setting_is_documented_that_does_not_exist() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8").split("## Variables")[0]
    names = {row[0].strip("`") for row in rows(text)} - {"name"}
    assert names == {setting.name for setting in SETTINGS} | {"paths"}


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_is_documented(name: str) -> None:
    text = section(name)
    named = {opt for param in commands()[name].params for opt in (*param.opts, *param.secondary_opts)}
    options = {option for option in named if option.startswith("-")} - COMMON
    assert not {option for option in options if f"`{option}`" not in text}
    documented = set(re.findall(r"^\|[^|]*`(--[a-z-]+)`", text, re.MULTILINE))
    assert documented <= options


@pytest.mark.parametrize("name", [name for name, command in commands().items() if not isinstance(command, click.Group)])
def test_help_teaches(name: str) -> None:
    text = commands()[name].help or ""
    assert "Exit codes:" in text
    assert name == "model status" or "Example:" in text
    for code in {int(number) for number in re.findall(r"\b(\d+)\b", text.split("Exit codes:")[1])}:
        assert code in EXIT_CODES.values(), f"{name}: {code} is no exit code"


def test_every_leaf_command_about_a_palace_takes_it() -> None:
    without = {
        name
        for name, command in commands().items()
        if not isinstance(command, click.Group) and not any(param.name == "palace" for param in command.params)
    }
    assert without == {"demo", "selftest", "completion"}


def test_exit_codes_in_the_short_help_are_real() -> None:
    epilog = root.epilog or ""
    numbers = {int(number) for number in re.findall(r"\b(\d+)\b", epilog.split("Exit codes:")[1])}
    assert numbers == set(EXIT_CODES.values())


@pytest.mark.parametrize("name", pages())
def test_the_manual_pages_say_what_the_help_says(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name], "run: .dev/venv/bin/python -m tests.manual"


@pytest.mark.parametrize("name", pages())
def test_man_shows_the_manual_pages_without_a_warning(name: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("no man here")
    argv = ["man", "--warnings", "--local-file", str(FOLDER / name)]
    done = subprocess.run(argv, env={**os.environ, "MANWIDTH": "100"}, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert "SEE ALSO" in done.stdout


def test_the_agents_that_setup_knows_are_documented() -> None:
    named = {key for row in rows(section("setup")) for key in row[0].split(", ")}
    assert {agent.key for agent in AGENTS} <= named


def test_contributing_names_files_that_exist() -> None:
    repo = DOCS.parent
    text = (repo / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+(?:\.(?:py|md|toml|yml|txt)|/))`", text)) - {"machine/"}  # in many places
    assert len(named) > 30
    assert not [name for name in named if not (repo / name).exists() and not (repo / PACKAGE / name).exists()]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCS.parent.glob("*.md"), *DOCS.glob("*.md")], ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    for name, _, anchor in (link.partition("#") for link in links if "://" not in link):
        target = document.parent / name if name else document
        assert target.exists(), name
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{name}#{anchor}"
