"""The bench that outputs are tried on."""

from datetime import UTC, datetime, timedelta


class TurnedClock:
    """A clock that moves when it is told to; sleeping moves it at once."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 4, 28, 12, 0, 0, tzinfo=UTC)
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.turn(seconds)

    def turn(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
