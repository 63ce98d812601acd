"""A worker's lease: while it holds, nobody else runs its generations."""

from uuid import UUID

from babysea_server.kit.clock import Clock


class LeaseLostError(Exception):
    """The generation belongs to somebody else now, or has ended; this run must stop without a trace."""


class Lease:
    """What a worker may believe about its own lease without asking the database.

    The local deadline starts when a renewal is *sent*, so it always ends before the database's does.
    """

    def __init__(self, worker_id: UUID, clock: Clock, *, lease_s: float) -> None:
        self.worker_id = worker_id
        self.lease_s = lease_s
        self._clock = clock
        self._valid_until = clock.monotonic()

    def renewed(self, sent_at: float) -> None:
        """A renewal that was sent at this monotonic time succeeded."""
        self._valid_until = sent_at + self.lease_s

    def lose(self) -> None:
        """The database has given this worker up."""
        self._valid_until = float("-inf")

    def remaining_s(self) -> float:
        """Seconds for which the lease certainly still holds; zero or less when it does not."""
        return self._valid_until - self._clock.monotonic()

    def check(self) -> None:
        """Before anything that must not happen twice.

        Raises:
            LeaseLostError: the lease may be over.
        """
        if self.remaining_s() <= 0:
            raise LeaseLostError
