"""Moments on the wire, and the machine's own clock."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.kit.clock import SystemClock, parse_rfc3339, rfc3339

moments = st.datetimes(timezones=st.just(UTC))


def test_moments_are_utc_with_milliseconds_and_z() -> None:
    assert rfc3339(datetime(2026, 4, 28, 12, tzinfo=UTC)) == "2026-04-28T12:00:00.000Z"
    east = timezone(timedelta(hours=9))
    assert rfc3339(datetime(2026, 4, 28, 12, 0, 1, 999_999, tzinfo=east)) == "2026-04-28T03:00:01.999Z"


@given(moments)
def test_a_moment_survives_the_way_out_and_in_again(moment: datetime) -> None:
    whole = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_rfc3339(rfc3339(moment)) == whole


@pytest.mark.parametrize(
    "spelled", ["2026-04-28T14:00:00+02:00", "2026-04-28T12:00:00Z", "2026-04-28 12:00:00.0Z"]
)
def test_any_offset_means_the_same_moment(spelled: str) -> None:
    assert parse_rfc3339(spelled) == datetime(2026, 4, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "tomorrow",
        "2026-04-28",
        "2026-04-28T12:00:00",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_names_no_moment_is_a_value_error(spelled: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rfc3339(spelled)


async def test_the_system_clock_goes_forward_and_is_aware() -> None:
    clock = SystemClock()
    before, wall = clock.monotonic(), clock.now()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.now() >= wall
    assert wall.utcoffset() == timedelta(0)
