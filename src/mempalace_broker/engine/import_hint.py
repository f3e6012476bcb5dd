"""Words and hints for when mempalace can't be imported."""

from __future__ import annotations

_INSTALL = (
    "install mempalace there (`uv tool install mempalace` or `pip install mempalace`), or set MEMPALACE_BROKER_ENGINE "
    "to an interpreter that has it"
)
_NO_MEMORY = ("MemoryError", "failed to map segment", "annot allocate memory")
_MEMORY = (
    "free memory; if `mempalace-broker status` names a limit of whoever started this broker, "
    "`mempalace-broker restart` in a plain terminal starts it without"
)


def last_line(exc: BaseException) -> str:
    """Return the last line of an exception's text: the cause, where NumPy precedes it with a page of advice."""
    lines = str(exc).strip().splitlines()
    return lines[-1].strip() if lines else "it does not say why"


def import_failure(exc: BaseException) -> tuple[str, str]:
    """Return what is wrong and the next step, "" if none is known, for any exception but an ImportError."""
    words = f"{type(exc).__name__}: {last_line(exc)}"
    return f"mempalace can't be imported: {words}.", _memory_hint(words)


def _memory_hint(words: str) -> str:
    return _MEMORY if any(sign in words for sign in _NO_MEMORY) else ""


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
    return _memory_hint(words) or _INSTALL
