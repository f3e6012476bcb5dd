"""How long to wait before the next try. Randomness is handed in. `mp-shim` imports this module: keep it lean."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_DOUBLINGS = 40


def backoff(attempt: int, *, base: float, cap: float, rng: Callable[[], float]) -> float:
    """Return the seconds to wait after try number `attempt` (0 = the first) has failed.

    The pause doubles from `base` up to `cap`, and half of it is random: a hundred clients that failed together don't
    return together, and none returns at once.

    Args:
        attempt: tries that failed before this one.
        base, cap: seconds, 0 < base <= cap.
        rng: draws from [0, 1).
    """
    full = min(cap, base * 2.0 ** min(max(attempt, 0), _MAX_DOUBLINGS))
    return full * (0.5 + 0.5 * rng())
