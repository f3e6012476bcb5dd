from __future__ import annotations

import pytest

from mempalace_broker.engine.import_hint import import_failure, import_hint, last_line

QUARANTINE = (
    "dlopen(/v/lib/x.so, 0x0002): tried: '/v/lib/x.so' (code signature in <5E> '/v/lib/x.so' not valid for use in "
    "process: library load disallowed by system policy)"
)
PROCESSOR = (
    "dlopen(/v/x.so, 2): tried: '/v/x.so' (mach-o file, but is an incompatible architecture "
    "(have 'x86_64', need 'arm64'))"
)
OLDER_LIBC = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /v/x.so)"


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (QUARANTINE, "xattr -dr com.apple.quarantine '/v'"),
        (PROCESSOR, "for this processor"),
        (OLDER_LIBC, "on this system"),
        ("libscipy_openblas64.so: failed to map segment from shared object", "free memory"),
        ("No module named 'mempalace'", "install mempalace there"),
    ],
)
def test_each_cause_has_its_own_step(words: str, step: str) -> None:
    assert step in import_hint(words, "/v")


def test_of_a_page_of_advice_the_cause_is_told() -> None:
    numpy = "\n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: x.so: failed to map segment from shared object\n"
    assert last_line(ImportError(numpy)) == "Original error was: x.so: failed to map segment from shared object"


def test_too_little_memory_is_no_reason_to_install_anything() -> None:
    message, hint = import_failure(MemoryError())
    assert message == "mempalace can't be imported: MemoryError: it does not say why."
    assert "mempalace-broker restart" in hint
    assert import_failure(ValueError("no")) == ("mempalace can't be imported: ValueError: no.", "")
