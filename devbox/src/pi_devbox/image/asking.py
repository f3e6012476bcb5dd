"""Ask until there is an answer, within the bounds of `retry.Policy`; `retry.wait_before` decides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from .retry import LookupFailed, Policy, wait_before

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """A retry policy with the sleep and the randomness that it needs.

    Attributes:
        policy: the bounds. sleep: waits that many seconds. chance: returns a number in [0, 1).
    """

    policy: Policy = field(default_factory=Policy)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random


async def persist(question: Callable[[], Awaitable[T]], pace: Pace, limit: float) -> T:
    """Return the answer to `question`; raise the last LookupFailed after all attempts, or after `limit` seconds."""
    last = LookupFailed(f"no answer within {limit:.0f} s", transient=True)
    attempt = 0
    try:
        async with asyncio.timeout(limit):
            while True:
                attempt += 1
                try:
                    return await _once(question, pace.policy.each)
                except LookupFailed as exc:
                    last = exc
                pause = wait_before(attempt, last, pace.policy, pace.chance())
                if pause is None:
                    break
                await pace.sleep(pause)
    except TimeoutError:
        pass  # `last` holds the failure of the last complete attempt
    tries = f" (asked {attempt} times)" if attempt > 1 else ""
    raise LookupFailed(last.reason + tries, transient=last.transient, retry_after=last.retry_after)


async def _once(question: Callable[[], Awaitable[T]], limit: float) -> T:
    try:
        async with asyncio.timeout(limit):
            return await question()
    except TimeoutError:
        raise LookupFailed(f"no answer within {limit:.0f} s", transient=True) from None
