"""The hint fits the error: a folder that is read-only is not said to need room."""

from __future__ import annotations

import errno
import os

import pytest

from mempalace_broker.errors import file_hint, file_step
from mempalace_broker.system.shared_files import Untrusted

ROOM, ACCESS = "make room", "give yourself access to it"


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, ROOM),
        (errno.EDQUOT, ROOM),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, ACCESS),
        (errno.EPERM, ACCESS),
        (errno.EIO, "check the disk"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_each_kind_of_error_has_a_step_of_its_own(number: int, step: str) -> None:
    exc = OSError(number, os.strerror(number), "/p")
    assert file_step(exc).startswith(step) or step in file_step(exc)
    assert file_hint(exc, "name another: --dir") == f"{file_step(exc)}, or name another: --dir"
    assert (ROOM in file_hint(exc)) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_what_the_kind_does_not_show() -> None:
    exc = FileExistsError(errno.EEXIST, "File exists", "/p")
    assert file_step(exc) == ""
    assert file_hint(exc) == "mempalace-broker doctor"
    assert file_hint(exc, "name another") == "name another"
    assert file_hint(exc, "name another", otherwise="name a new one") == "name a new one"
    assert file_hint(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")) == "mempalace-broker doctor"


def test_a_file_that_is_not_believed_is_not_a_lack_of_rights() -> None:
    assert "a regular file of yours" in file_hint(Untrusted("/p", "it is a link"))
