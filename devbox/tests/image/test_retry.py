from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.image.asking import Pace, persist
from pi_devbox.image.retry import LookupFailed, Policy, refused, wait_before

NOW = 1_800_000_000.0
policies = st.builds(Policy, attempts=st.integers(1, 6), first=st.floats(0.01, 5), longest=st.floats(1, 60))


@given(policies, st.integers(1, 8), st.floats(0, 0.999), st.none() | st.floats(0, 1e6), st.booleans())
def test_waits_are_bounded_and_never_shorter_than_asked_for(
    policy: Policy, attempt: int, chance: float, asked: float | None, transient: bool
) -> None:
    wait = wait_before(attempt, LookupFailed("x", transient=transient, retry_after=asked), policy, chance)
    if not transient or attempt >= policy.attempts or (asked is not None and asked > policy.longest):
        assert wait is None
    else:
        assert wait is not None
        assert (asked or 0) <= wait <= policy.longest


def test_waits_grow() -> None:
    waits = [wait_before(n, LookupFailed("x", transient=True), Policy(attempts=9), 0.5) or 0 for n in range(1, 6)]
    assert waits == [0.75, 1.5, 3.0, 6.0, 12.0]


@pytest.mark.parametrize(
    ("status", "headers", "transient", "after"),
    [
        (500, {}, True, None),
        (503, {"retry-after": "7"}, True, 7.0),
        (503, {"retry-after": formatdate(NOW + 9, usegmt=True)}, True, 9.0),
        (503, {"retry-after": formatdate(NOW - 9, usegmt=True)}, True, 0.0),
        (503, {"retry-after": "soon"}, True, None),
        (503, {"retry-after": "-5"}, True, None),
        (503, {"retry-after": "9" * 400}, True, None),
        (503, {"retry-after": "²"}, True, None),
        (429, {}, True, None),
        (403, {}, False, None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 30)}, True, 30.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "never"}, True, None),
        (403, {"x-ratelimit-remaining": "12", "x-ratelimit-reset": str(int(NOW) + 30)}, False, None),
        (403, {"retry-after": "60"}, True, 60.0),
        (404, {}, False, None),
        (401, {}, False, None),
        (200, {}, False, None),
    ],
)
def test_what_a_refusal_means(status: int, headers: dict[str, str], transient: bool, after: float | None) -> None:
    failure = refused(status, headers, NOW)
    assert (failure.transient, failure.retry_after) == (transient, after)
    assert str(status) in failure.reason


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset"]), st.text()))
def test_no_header_is_too_strange(status: int, headers: dict[str, str]) -> None:
    after = refused(status, {"x-ratelimit-remaining": "0", **headers}, NOW).retry_after
    assert after is None or after >= 0


def _persist(failures: list[LookupFailed], policy: Policy) -> tuple[str, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def question() -> str:
        if failures:
            raise failures.pop(0)
        return "answer"

    return asyncio.run(persist(question, Pace(policy, sleep, lambda: 0.5), 60)), slept


def test_it_asks_again_until_there_is_an_answer() -> None:
    busy = [LookupFailed("busy", transient=True, retry_after=3.0), LookupFailed("busy", transient=True)]
    assert _persist(busy, Policy()) == ("answer", [3.0, 1.5])


@pytest.mark.parametrize(
    ("failure", "slept"),
    [
        (LookupFailed("gone"), 0),
        (LookupFailed("busy", transient=True), 3),
        (LookupFailed("come back in an hour", transient=True, retry_after=3600), 0),
    ],
)
def test_it_gives_up(failure: LookupFailed, slept: int) -> None:
    failures = [failure] * 9
    with pytest.raises(LookupFailed, match=failure.reason):
        _persist(failures, Policy())
    assert len(failures) == 9 - 1 - slept


def test_a_question_that_hangs_ends_with_its_limit() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(LookupFailed, match="no answer within"):
        asyncio.run(persist(hang, Pace(Policy(each=0.02, attempts=2, first=0.01)), 60))
    with pytest.raises(LookupFailed, match="no answer within"):
        asyncio.run(persist(hang, Pace(Policy(each=60)), 0.02))
