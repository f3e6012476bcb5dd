"""What helps where mempalace is installed and can't be imported."""

from __future__ import annotations

_INSTALL = (
    "install mempalace there (`uv tool install mempalace` or `pip install mempalace`), or set MEMPALACE_BROKER_ENGINE "
    "to an interpreter that has it"
)


def import_hint(words: str, prefix: str) -> str:
    """The next step, by the words of the ImportError: macOS's loader says in them why it refuses a library.

    Args:
        prefix: the folder of the interpreter's environment.
    """
    if "system policy" in words or "code signature" in words:
        return f"macOS has it in quarantine: xattr -dr com.apple.quarantine '{prefix}'"
    if "incompatible architecture" in words:
        return "install mempalace with a Python made for this processor: uv tool install --reinstall mempalace"
    if "GLIBC" in words:
        return "install mempalace on this system, not from a copy of another one: uv tool install --reinstall mempalace"
    return _INSTALL
