"""A region whose events are told: endpoints at a receiver on loopback, deliverers as the test builds them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from tests.execution.conftest import catalog, house, plain_logs
from tests.support import eventually, make_account
from tests.webhooks.receiver import Receiver, receiver

from babysea_server.db.pool import Database
from babysea_server.execution import store as execution
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.outputs.links import LinkSigner
from babysea_server.webhooks import store
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.deliverer import Deliverer, DelivererSettings
from babysea_server.webhooks.secrets import SecretBox, new_secret
from babysea_server.webhooks.sender import Sender
from babysea_server.webhooks.types import EVENTS, DueDelivery

__all__ = ["catalog", "house", "plain_logs"]

KEY = b"k" * 32
ORIGIN = "https://api.us.example.com"


@dataclass(frozen=True)
class Hook:
    """An endpoint, and the path of the receiver that it leads to."""

    id: UUID
    path: str
    secret: str


@dataclass
class Post:
    """See the module."""

    db: Database
    receiver: Receiver
    account_id: UUID
    box: SecretBox = field(default_factory=lambda: SecretBox(KEY))
    deliverers: list[Deliverer] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)

    async def hook(
        self,
        path: str = "/hook",
        *,
        events: Sequence[str] = EVENTS,
        state: str = "enabled",
        url: str | None = None,
        account_id: UUID | None = None,
    ) -> Hook:
        """An endpoint of the account."""
        hook = Hook(uuid7(), path, new_secret())
        await self.db.execute(
            """INSERT INTO webhook_endpoints (id, account_id, url, events, secret, state)
               VALUES ($1, $2, $3, $4, $5, $6)""",
            hook.id,
            account_id or self.account_id,
            url or f"{self.receiver.origin}{path}",
            list(events),
            self.box.seal(hook.secret),
            state,
        )
        return hook

    async def happen(self, times: int = 1, *, event: str = "credits.low_balance", **data: Any) -> None:
        """Something happens to the account."""
        for number in range(times):
            await self.db.execute(
                "SELECT enqueue_account_event_v1($1, $2, $3)",
                self.account_id,
                event,
                {"account_id": str(self.account_id), "current_balance": number, **data},
            )

    def bodies(self) -> Bodies:
        """What renders deliveries."""
        return Bodies(LinkSigner(KEY, SystemClock()), ORIGIN, "us")

    def deliverer(self, *, sender: Sender | None = None, **settings: Any) -> Deliverer:
        """A started deliverer; keyword arguments are its settings. Jitter is none: the middle of the step."""
        if sender is None:
            sender = Sender(SystemClock(), allow_private=True, body_s=0.2)
        self.senders.append(sender)
        deliverer = Deliverer(
            self.db,
            sender,
            self.box,
            self.bodies(),
            SystemClock(),
            DelivererSettings(**{"poll_s": 0.02, "lease_s": 5.0, **settings}),
            uniform=lambda: 0.5,
        )
        deliverer.start()
        self.deliverers.append(deliverer)
        return deliverer

    async def endpoint(self, hook: Hook) -> Any:
        """The endpoint's row."""
        return await self.db.fetchrow("SELECT * FROM webhook_endpoints WHERE id = $1", hook.id)

    async def deliveries(self, hook: Hook | None = None) -> list[Any]:
        """Deliveries, oldest first."""
        return await self.db.fetch(
            """SELECT d.*, (SELECT max(at) FROM webhook_attempts a WHERE a.delivery_id = d.id) AS tried_at
               FROM webhook_deliveries d WHERE $1::uuid IS NULL OR endpoint_id = $1 ORDER BY id""",
            hook and hook.id,
        )

    async def attempts(self, delivery_id: UUID) -> list[Any]:
        """The tries of a delivery, in order."""
        return await self.db.fetch(
            "SELECT * FROM webhook_attempts WHERE delivery_id = $1 ORDER BY number", delivery_id
        )

    async def settled(self, hook: Hook, *, attempts: int = 1) -> list[Any]:
        """The endpoint's deliveries once each was tried so often, and nothing is under way."""

        async def done() -> list[Any] | None:
            rows = await self.deliveries(hook)
            over = all(row["attempts"] >= attempts and row["worker_id"] is None for row in rows)
            return rows if rows and over else None

        return await eventually(done)

    async def tried_before(self, times: int, *, only_attempts: int = 0) -> None:
        """Let what is still to be sent have failed so often already; it is due where it was."""
        await self.db.execute(
            "UPDATE webhook_deliveries SET attempts = $1 WHERE state = 'pending' AND attempts = $2",
            times,
            only_attempts,
        )

    async def bare_worker(self) -> UUID:
        """A deliverer of which there is only the lease."""
        worker_id = uuid7()
        await execution.register(self.db, worker_id, host="test", pid=1, lease_s=60)
        return worker_id

    async def claim(self, worker_id: UUID, *, per_endpoint: int = 8) -> list[DueDelivery]:
        """What a bare worker gets."""
        claimed = await store.claim(
            self.db, worker_id, limit=100, per_endpoint=per_endpoint, after=store.BEGINNING, endpoints=100
        )
        return claimed.deliveries

    async def make_due(self, hook: Hook) -> None:
        """Let the time pass until the endpoint's next attempts."""
        await self.db.execute(
            "UPDATE webhook_deliveries SET due_at = now() WHERE endpoint_id = $1 AND due_at < 'infinity'",
            hook.id,
        )


@pytest.fixture
async def post(db: Database) -> AsyncIterator[Post]:
    """An account without endpoints, and nobody who delivers yet."""
    account_id, _ = await make_account(db)
    async with receiver() as one:
        post = Post(db, one, account_id)
        yield post
        for deliverer in post.deliverers:
            await deliverer.stop(within_s=0.1)
        for sender in post.senders:
            await sender.close()
