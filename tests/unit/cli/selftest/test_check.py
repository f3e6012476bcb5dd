"""How a check is run: bounded, and never the end of the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.cli.selftest.check import (
    Bench,
    Check,
    Outcome,
    Skip,
    TookTooLong,
    Verdict,
    run_check,
    time_limit,
    without_home,
)
from mempalace_broker.errors import BrokerUnavailable
from mempalace_broker.system.clock import Clock, Deadline


def run(measure: Callable[[Any], Any], *, seconds: float = 30.0, limit_s: float = 20.0) -> Outcome:
    def judge(measured: object) -> Outcome:
        return Outcome(Verdict.OK, str(measured))

    bench: Any = None
    return run_check(Check("one", measure, judge, limit_s), bench, Deadline.after(Clock(), seconds))


def raising(error: Exception) -> Callable[[Any], Any]:
    def measure(_: object) -> None:
        raise error

    return measure


def hangs(_: object) -> None:
    read, write = os.pipe()
    try:
        os.read(read, 1)
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize(
    ("measure", "more", "verdict", "why"),
    [
        (lambda _: 7, {}, Verdict.OK, ""),
        (raising(Skip("no such thing here")), {}, Verdict.SKIPPED, "no such thing here"),
        (raising(PermissionError(1, "not permitted")), {}, Verdict.FAILED, "PermissionError"),
        (raising(BrokerUnavailable("nobody answers.", hint="look")), {}, Verdict.FAILED, "nobody answers"),
        (hangs, {"limit_s": 0.05}, Verdict.FAILED, "no result within"),
        (lambda _: 7, {"seconds": 0.0}, Verdict.SKIPPED, "time for all checks is over"),
    ],
)
def test_whatever_happens_is_an_outcome(
    measure: Callable[[Any], Any], more: dict[str, float], verdict: Verdict, why: str
) -> None:
    outcome = run(measure, **more)
    assert outcome.verdict == verdict
    assert why in outcome.why


def test_limits_nest_and_the_outer_one_still_rings() -> None:
    rung: list[str] = []

    def inner() -> None:
        try:
            with time_limit(0.05):
                hangs(None)
        except TookTooLong:
            rung.append("inner")
        hangs(None)

    before = signal.getsignal(signal.SIGALRM)  # of pytest, whose own limit goes on
    with pytest.raises(TookTooLong), time_limit(0.2):
        inner()
    assert rung == ["inner"]
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_report_does_not_name_the_users_home(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    env = {"HOME": str(tmp_path / "link")}
    assert without_home(f"{tmp_path}/x:{tmp_path}/link/y", env) == "~/x:~/y"


def test_the_bench_has_a_home_and_a_palace_of_its_own(tmp_path: Path) -> None:
    env = {"HOME": "/home/me", "PATH": "/bin", "MEMPALACE_PALACE_PATH": "/mine", "MEMPALACE_BROKER": "unix:/mine/s"}
    bench = Bench(tmp_path, {**env, "MEMPALACE_BROKER_ENGINE": "/nowhere/python"})
    assert bench.engine is None
    assert "/nowhere/python" in bench.no_engine
    context = bench.context()
    for path in (context.identity.path, context.files.record, context.files.private.path):
        assert Path(path).is_relative_to(tmp_path)
