"""The arithmetic of periods: calendar months from an anchor."""

import calendar
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.accounts.periods import Period, months_after

MOMENTS = st.timedeltas(timedelta(0), timedelta(days=100 * 366)).map(
    lambda elapsed: datetime(1999, 1, 1, tzinfo=UTC) + elapsed
)


def starts(anchor: datetime, months: int) -> list[str]:
    return [months_after(anchor, number).strftime("%Y-%m-%d %H:%M") for number in range(1, months + 1)]


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        (
            datetime(2026, 1, 31, 23, 59, tzinfo=UTC),
            ["2026-02-28 23:59", "2026-03-31 23:59", "2026-04-30 23:59"],
        ),
        (datetime(2028, 1, 30, tzinfo=UTC), ["2028-02-29 00:00", "2028-03-30 00:00", "2028-04-30 00:00"]),
        (datetime(2028, 2, 29, tzinfo=UTC), ["2028-03-29 00:00", "2028-04-29 00:00", "2028-05-29 00:00"]),
        (datetime(2026, 11, 30, tzinfo=UTC), ["2026-12-30 00:00", "2027-01-30 00:00", "2027-02-28 00:00"]),
        (
            datetime(2026, 12, 15, 12, tzinfo=UTC),
            ["2027-01-15 12:00", "2027-02-15 12:00", "2027-03-15 12:00"],
        ),
    ],
)
def test_a_month_later_is_the_same_day_or_the_months_last(anchor: datetime, expected: list[str]) -> None:
    assert starts(anchor, 3) == expected


def test_an_anchor_on_a_leap_day_comes_back_to_it() -> None:
    leap = datetime(2096, 2, 29, tzinfo=UTC)
    assert months_after(leap, 12) == datetime(2097, 2, 28, tzinfo=UTC)
    assert months_after(leap, 48) == datetime(2100, 2, 28, tzinfo=UTC), "2100 is no leap year"
    assert months_after(leap, 96) == datetime(2104, 2, 29, tzinfo=UTC)


@given(MOMENTS, st.integers(0, 600))
def test_months_are_counted_from_the_anchor_and_never_drift(anchor: datetime, months: int) -> None:
    later = months_after(anchor, months)
    assert (later.year - anchor.year) * 12 + later.month - anchor.month == months
    assert later.timetz() == anchor.timetz()
    last_day = calendar.monthrange(later.year, later.month)[1]
    assert later.day == anchor.day or (later.day == last_day and last_day < anchor.day)
    assert months_after(anchor, months + 1) > later


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=4000)))
def test_periods_follow_each_other_without_a_gap_up_to_now(begun: datetime, elapsed: timedelta) -> None:
    first = Period.first(begun)
    now = begun + elapsed
    periods = [first, *first.later(now)]
    assert first.starts_at == first.anchor
    assert timedelta(0) <= begun - first.starts_at < timedelta(milliseconds=1)
    assert all(earlier.ends_at == later.starts_at for earlier, later in pairwise(periods))
    assert all(timedelta(days=28) <= each.ends_at - each.starts_at <= timedelta(days=31) for each in periods)
    assert {each.anchor for each in periods} == {first.anchor}
    assert periods[-1].starts_at <= now < periods[-1].ends_at


@given(MOMENTS, st.lists(st.timedeltas(timedelta(0), timedelta(days=100)), max_size=8))
def test_however_often_one_looks_the_periods_are_the_same(begun: datetime, waits: list[timedelta]) -> None:
    first = Period.first(begun)
    now, seen = begun, [first]
    for wait in waits:
        now += wait
        seen += seen[-1].later(now)
    assert seen == [first, *first.later(now)]


def test_a_period_is_over_at_its_very_end_and_not_before() -> None:
    first = Period.first(datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert list(first.later(first.ends_at - timedelta(microseconds=1))) == []
    (second,) = first.later(first.ends_at)
    assert (second.starts_at, second.ends_at) == (first.ends_at, datetime(2026, 3, 31, 12, tzinfo=UTC))
