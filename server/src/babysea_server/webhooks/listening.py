"""Hearing an account's events without an address that the server could reach: for development."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.clock import Clock
from babysea_server.kit.faults import NotFoundError
from babysea_server.webhooks import listener_store as store
from babysea_server.webhooks.endpoints import check_events
from babysea_server.webhooks.secrets import SecretBox, new_secret
from babysea_server.webhooks.types import DueDelivery

POLL_S = 0.3
_TOUCH_EVERY_S = 15.0
#: A listener that was not heard of for so long was killed, and its row is taken away by the next one.
_SILENT_S = 120.0
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener while it is open; `secret` signs what it hears."""

    id: UUID
    secret: str = field(repr=False)
    db: Database
    clock: Clock

    async def events(self) -> AsyncGenerator[DueDelivery, None]:
        """Each event once, as it happens and in order; without end.

        Raises:
            NotFoundError: the listener's row was deleted, for example with its account.
        """
        touched_at = self.clock.monotonic()
        while True:
            for delivery in await store.heard(self.db, self.id, limit=_BATCH):
                yield delivery
                await store.mark(self.db, delivery.id)
            if self.clock.monotonic() - touched_at >= _TOUCH_EVERY_S:
                touched_at = self.clock.monotonic()
                if not await store.touch(self.db, self.id):
                    raise NotFoundError("the listener is gone, perhaps with its account")
            await self.clock.sleep(POLL_S)


@asynccontextmanager
async def listener(
    db: Database, box: SecretBox, clock: Clock, account_id: UUID, events: Sequence[str]
) -> AsyncIterator[Listener]:
    """Listen to events of an account from now on; nothing is left of it in the database afterwards.

    It is a row beside the account's endpoints that no limit counts, no list shows and no worker sends to.

    Raises:
        ValueError: no events, or one that there is not.
        NotFoundError: no such account.
    """
    await store.delete_silent(db, for_s=_SILENT_S)
    secret = new_secret()
    listener_id = await store.insert(db, account_id, check_events(events), box.seal(secret))
    if listener_id is None:
        raise NotFoundError(f"no account {account_id} in this region")
    try:
        yield Listener(listener_id, secret, db, clock)
    finally:
        with suppress(DatabaseUnavailableError):  # then the next listener takes the row away
            await store.delete(db, listener_id)
