"""The manual pages, from the commands' own help and the settings: `.dev/venv/bin/python -m tests.manual` writes them.

The wheel installs docs/man as share/man/man1. A test fails until the pages say what the help says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mempalace_broker import __version__
from mempalace_broker.cli.outcome import PROG
from mempalace_broker.cli.root import root
from mempalace_broker.settings import BrokerSettings, ContainerSettings, settings_of
from mempalace_broker.shim.main import HELP
from tests.harness import REPO

FOLDER = REPO / "docs" / "man"
_SECTION = "1"


def pages() -> dict[str, str]:
    """File name -> content."""
    return {"mempalace-broker.1": "\n".join(_broker()) + "\n", "mp-shim.1": "\n".join(_shim()) + "\n"}


def _broker() -> Iterator[str]:
    context = click.Context(root, info_name=PROG)
    yield from _head(PROG, "one writer for one MemPalace")
    yield from (".SH SYNOPSIS", f".B {PROG}", r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]...")
    yield from (".SH DESCRIPTION", *_text(root.help or ""))
    yield from (".SH OPTIONS", *_options(root, context))
    yield ".SH COMMANDS"
    yield from _commands(root, context)
    yield ".SH ENVIRONMENT"
    yield from _text("Each overrides the setting of the same meaning in ~/.config/mempalace-broker/config.toml.")
    for setting in (*settings_of(BrokerSettings), *settings_of(ContainerSettings)):
        yield from (".TP", rf"\fB{_plain(setting.env)}\fR", f"The setting {_plain(setting.name)}.")
    yield from (".SH NOTES", *_text(root.epilog or ""))
    yield from (".SH SEE ALSO", r"\fBmp\-shim\fR(1)")


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inner))
        yield from (
            f".SS {_plain(inner.command_path.removeprefix(f'{PROG} '))} {_plain(usage)}",
            *_text(command.help or ""),
        )
        yield from _options(command, inner)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for param in command.get_params(context):
        if (record := param.get_help_record(context)) and (param.name != "help" or context.parent is None):
            yield from (".TP", rf"\fB{_plain(record[0])}\fR", _plain(record[1]) or ".br")


def _shim() -> Iterator[str]:
    yield from _head("mp-shim", "the MCP server over stdio that agents start instead of mempalace-mcp")
    yield from (".SH DESCRIPTION", ".nf", *map(_plain, HELP.strip().splitlines()), ".fi")
    yield from (".SH SEE ALSO", r"\fBmempalace\-broker\fR(1)")


def _head(name: str, what: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {_SECTION} "" "mempalace-broker {__version__}" "User Commands"'
    yield from (".SH NAME", rf"{_plain(name)} \- {_plain(what)}")


def _text(text: str) -> Iterator[str]:
    r"""Paragraphs of click's help; one that begins with \b keeps its lines."""
    for paragraph in text.strip().split("\n\n"):
        lines = [
            line.strip() if "\b" not in paragraph else line for line in paragraph.splitlines() if line.strip(" \b")
        ]
        yield ".PP"
        if "\b" in paragraph:
            yield from (".nf", *map(_plain, lines), ".fi")
        else:
            yield _plain(" ".join(lines))


def _plain(text: str) -> str:
    r"""For roff: a backslash and a hyphen as themselves, no line that begins with a request."""
    quoted = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{quoted}" if quoted.startswith((".", "'")) else quoted


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, content in pages().items():
        Path(FOLDER, name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
