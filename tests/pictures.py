"""Pictures of what tests saw, for people to look at: in the folder that MPB_SCREENSHOTS names, else thrown away."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI
from rich.text import Text

VARIABLE = "MPB_SCREENSHOTS"
_HOME = b"\x1b[H"  # a program that fills the screen begins each picture there


def pictures(otherwise: Path) -> Path:
    """The folder for pictures, made if need be."""
    folder = Path(os.environ.get(VARIABLE) or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def draw_terminal(raw: bytes, name: str, folder: Path, columns: int = 80) -> list[str]:
    """Draw what a program that fills the screen has shown last, as NAME-light.svg and NAME-dark.svg; its lines."""
    *_, before, _ = raw.split(_HOME)  # the very last picture may be incomplete
    lines = before.decode().split("\r\n")
    for kind, theme in (("light", DEFAULT_TERMINAL_THEME), ("dark", DIMMED_MONOKAI)):
        console = Console(file=io.StringIO(), record=True, width=columns, force_terminal=True, legacy_windows=False)
        for line in lines:
            console.print(Text.from_ansi(line), soft_wrap=True)
        console.save_svg(str(folder / f"{name}-{kind}.svg"), title=name, theme=theme)
    return [Text.from_ansi(line).plain for line in lines]
