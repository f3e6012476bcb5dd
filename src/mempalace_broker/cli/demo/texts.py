"""Text files as pieces of a size that an agent would file as one drawer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError

SHIPPED = Path(__file__).parent / "texts"
SUFFIXES = (".md", ".txt", ".rst")
SHORTEST, LONGEST = 40, 700  # characters; a longer drawer would be cut into chunks by mempalace itself
MOST_PIECES = 240
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """One piece of a file: `room` is the file's name without its ending, `number` counts in the file from 1."""

    source: str
    room: str
    number: int
    text: str


def load(folder: Path | None = None) -> list[Piece]:
    """The pieces of all text files of a folder, of ours if none is given, at most `MOST_PIECES`.

    Raises:
        UsageError: the folder has no readable text.
    """
    folder = folder or SHIPPED
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    pieces: list[Piece] = []
    seen: set[str] = set()
    for path in files:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
        room = path.stem.lower().replace(" ", "-")
        for number, part in enumerate(split(text), 1):
            if part not in seen:  # the same text twice would be one drawer
                seen.add(part)
                pieces.append(Piece(str(path), room, number, part))
    if not pieces:
        raise UsageError(
            f"no text in {folder}: no paragraph of {SHORTEST} characters in any {', '.join(SUFFIXES)} file.",
            hint="give another --input, or none for the texts that come with the demo",
        )
    return pieces[:MOST_PIECES]


def split(text: str) -> list[str]:
    """Paragraphs, without headings and code, joined or cut to fit the limits."""
    parts: list[str] = []
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        flat = " ".join(paragraph.split())
        if len(flat) < SHORTEST or flat.startswith(("#", "```", "|")):
            continue
        parts.extend(_cut(flat))
    return parts


def _cut(flat: str) -> list[str]:
    """A paragraph in pieces of at most LONGEST characters, cut between words."""
    out = []
    while len(flat) > LONGEST:
        at = flat.rfind(" ", SHORTEST, LONGEST)
        at = at if at > 0 else LONGEST
        out.append(flat[:at])
        flat = flat[at:].strip()
    return [*out, flat] if len(flat) >= SHORTEST or not out else out
