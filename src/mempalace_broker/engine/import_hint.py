"""Hints for when mempalace can't be imported."""

from __future__ import annotations

_INSTALL = (
    "install mempalace there (`uv tool install mempalace` or `pip install mempalace`), or set MEMPALACE_BROKER_ENGINE "
    "to an interpreter that has it"
)


def import_hint(words: str, prefix: str) -> str:
    """Return the next step, by the text of the ImportError, in which macOS's loader says why it refuses a library.

    Args:
        prefix: the folder of the interpreter's environment.
    """
    if "system policy" in words or "code signature" in words:
        return f"macOS has quarantined its files: xattr -dr com.apple.quarantine '{prefix}'"
    if "incompatible architecture" in words:
        return "install mempalace with a Python made for this processor: uv tool install --reinstall mempalace"
    if "GLIBC" in words:
        return "install mempalace on this system instead of copying it: uv tool install --reinstall mempalace"
    return _INSTALL
