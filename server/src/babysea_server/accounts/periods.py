"""The arithmetic of billing periods: calendar months in UTC, counted from an anchor."""

import calendar
from collections.abc import Iterator
from datetime import datetime
from typing import final

import msgspec


@final
class Period(msgspec.Struct, frozen=True):
    """One period of an account, from `starts_at` up to but without `ends_at`."""

    anchor: datetime
    """When the first period began. All bounds are counted from it, so that short months never shift the later ones."""
    starts_at: datetime
    ends_at: datetime

    @classmethod
    def first(cls, now: datetime) -> "Period":
        """The period that begins now, to the millisecond: what is told of it is exact."""
        anchor = now.replace(microsecond=now.microsecond // 1000 * 1000)
        return cls(anchor, anchor, months_after(anchor, 1))

    def later(self, now: datetime) -> Iterator["Period"]:
        """The periods after this one that have begun by `now`, oldest first."""
        number = (self.ends_at.year - self.anchor.year) * 12 + self.ends_at.month - self.anchor.month
        starts_at = self.ends_at
        while starts_at <= now:
            number += 1
            ends_at = months_after(self.anchor, number)
            yield Period(self.anchor, starts_at, ends_at)
            starts_at = ends_at


def months_after(anchor: datetime, months: int) -> datetime:
    """The same day and time so many months later; the month's last day where it has no such day."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)
