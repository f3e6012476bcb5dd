"""What is degraded is said once, however often it happens."""

from __future__ import annotations

import errno
import logging

import pytest

from mempalace_broker.broker.warnings import Warnings


@pytest.fixture
def warnings() -> Warnings:
    return Warnings(logging.getLogger("test.warnings"))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_when_descriptors_run_out_each_knock_is_the_same_warning(
    warnings: Warnings, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    for _ in range(100):
        warnings.callback_failed("socket.accept() out of system resource", OSError(code, "Too many open files"))
    (entry,) = warnings.entries
    assert "new sessions had to wait" in entry["what"]
    assert "ulimit -n" in entry["hint"]
    assert len(caplog.records) == 1


def test_whatever_else_a_callback_raises_is_a_bug_of_ours(warnings: Warnings, caplog: pytest.LogCaptureFixture) -> None:
    warnings.callback_failed("Exception in callback f", ValueError("x"))
    assert "in the loop: Exception in callback f" in caplog.text
    assert "report it" in warnings.entries[0]["hint"]
