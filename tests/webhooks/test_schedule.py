"""When a delivery is tried again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.webhooks.schedule import ATTEMPTS_MAX, LIFE_MAX_S, STEPS_S, again_after, retry_after

NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)
attempts = st.integers(1, ATTEMPTS_MAX - 1)
draws = st.floats(0, 1, exclude_max=True)


def test_attempts_follow_the_contracts_table() -> None:
    assert [again_after(made, None, lambda: 0.5) for made in range(1, 10)] == [
        1,
        4,
        16,
        60,
        600,
        3600,
        21_600,
        86_400,
        None,
    ]


@given(attempts, draws)
def test_jitter_stays_within_a_fifth(made: int, draw: float) -> None:
    delay = again_after(made, None, lambda: draw)
    assert delay is not None
    assert 0.8 * STEPS_S[made - 1] <= delay <= 1.2 * STEPS_S[made - 1]


@given(attempts, draws, st.floats(0, 1e12))
def test_what_the_receiver_asks_for_only_lengthens_and_at_most_to_twice_the_step(
    made: int, draw: float, asked: float
) -> None:
    alone, delay = (again_after(made, wish, lambda: draw) for wish in (None, asked))
    assert alone is not None
    assert delay is not None
    assert alone <= delay <= 2 * STEPS_S[made - 1]
    assert delay >= min(asked, 2 * STEPS_S[made - 1])


def test_no_delivery_outlives_its_links() -> None:
    longest = [again_after(made, 1e12, lambda: 0.999) for made in range(1, ATTEMPTS_MAX)]
    assert sum(delay or 0 for delay in longest) + 72 * 3600 <= LIFE_MAX_S
    assert again_after(ATTEMPTS_MAX, 1.0, lambda: 0.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        (" 7 ", 7),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 400, 172_800),
        ("tomorrow", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 172_800),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date_or_nothing(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@given(st.text())
def test_retry_after_never_raises(header: str) -> None:
    found = retry_after(header, NOW)
    assert found is None or 0 <= found <= 172_800
