"""How long a pause is, as the one who asked for it measures it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.broker.machine import lender
from mempalace_broker.cli.exclusive import borrow
from mempalace_broker.system.clock import Deadline
from tests.fakes.clock import FakeClock


def test_a_pause_runs_from_the_answer_and_ends_before_the_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    def look(*_: object, but: int) -> str:
        clock.move(2.0)
        return ""

    def grant(*_: object, pause: bool) -> borrow.Loan:
        assert pause
        granted.append(clock.monotonic())
        return borrow.Loan([])

    granted: list[float] = []
    monkeypatch.setattr(borrow, "refuse_elsewhere", lambda _: None)
    monkeypatch.setattr(borrow, "other_opener", look)
    monkeypatch.setattr(borrow, "read_pid", lambda _: 7)
    monkeypatch.setattr(borrow.Borrower, "_attempt", grant)
    context = cast(Any, SimpleNamespace(clock=clock, files=SimpleNamespace(engine_lock="/p/engine.lock")))
    with borrow.Borrower(context, ["backup"], 10.0).pause(Deadline.after(clock, 10.0)) as began:
        assert granted == [began], "writes wait while we look for others once more"
        assert clock.monotonic() == began + 2.0
    assert borrow.PAUSE_S < lender.PAUSE_S
