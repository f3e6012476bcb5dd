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

    monkeypatch.setattr(borrow, "refuse_elsewhere", lambda _: None)
    monkeypatch.setattr(borrow, "other_opener", look)
    monkeypatch.setattr(borrow, "read_pid", lambda _: 7)
    monkeypatch.setattr(borrow.Borrower, "_attempt", lambda *_, pause: borrow.Loan([]))
    context = cast(Any, SimpleNamespace(clock=clock, files=SimpleNamespace(engine_lock="/p/engine.lock")))
    asked = clock.monotonic()
    with borrow.Borrower(context, ["backup"], 10.0).pause(Deadline.after(clock, 10.0)) as began:
        assert began == asked, "writes wait while we look for others, too"
    assert borrow.PAUSE_S < lender.PAUSE_S
