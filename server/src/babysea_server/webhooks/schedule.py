"""When a delivery is tried again."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Seconds between an attempt and the next; the first is made at once.
STEPS_S: tuple[int, ...] = (1, 4, 16, 60, 600, 3600, 21_600, 86_400)
ATTEMPTS_MAX = len(STEPS_S) + 1
#: Hours that an event waits for an endpoint that is not enabled.
WAIT_HOURS = 72
#: A delivery ends within so many seconds, whatever its receiver asks for and however its endpoint is switched.
LIFE_MAX_S = 2 * sum(STEPS_S) + WAIT_HOURS * 3600

_JITTER = 0.2
_DELAY_MAX_S = 2 * STEPS_S[-1]


def again_after(attempts: int, retry_after_s: float | None, uniform: Callable[[], float]) -> float | None:
    """Seconds until the next attempt after `attempts` that failed; None when there is none.

    The step of the schedule, give or take a fifth, so that what failed together is not tried together. What the
    receiver asks for counts up to twice the step.

    Args:
        attempts: how many have been made, at least 1.
        retry_after_s: what the receiver's last answer asked for.
        uniform: draws from [0, 1).
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    step = STEPS_S[attempts - 1]
    delay = step * (1 - _JITTER + 2 * _JITTER * uniform())
    return delay if retry_after_s is None else max(delay, min(retry_after_s, 2.0 * step))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, as a number or a date; None for anything else."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Longer numbers mean no more, and some mean too much for a float.
        return float(min(int(text[:12]), _DELAY_MAX_S))
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(0.0, (moment - now).total_seconds()), float(_DELAY_MAX_S))
    except (ValueError, TypeError, OverflowError):
        return None
