from __future__ import annotations

import pytest

from mempalace_broker.engine.import_hint import import_hint

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
        ("No module named 'mempalace'", "install mempalace there"),
    ],
)
def test_each_cause_has_its_own_step(words: str, step: str) -> None:
    assert step in import_hint(words, "/v")
