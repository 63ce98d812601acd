"""The life of endpoints: created, changed, enabled, disabled, given new secrets, deleted.

Where a function takes `account_id`, only that account's endpoints are found; None stands for the operator, who may
name any. Where it takes `Database | Any`, a connection of it that is in a transaction will do, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError
from babysea_server.webhooks import endpoint_store as store
from babysea_server.webhooks.endpoint_store import Endpoint, Refusal
from babysea_server.webhooks.secrets import SealedSecretError, SecretBox, new_secret
from babysea_server.webhooks.types import EVENTS
from babysea_server.webhooks.urls import check_endpoint_url

#: Endpoints that one account may have.
ENDPOINTS_MAX = 20
DESCRIPTION_MAX = 200

#: Sent to whoever asks for it, so nobody subscribes to it.
TEST_EVENT = "webhook.test"
#: What an endpoint may subscribe to.
SUBSCRIBABLE: tuple[str, ...] = tuple(event for event in EVENTS if event != TEST_EVENT)

_STEP = 2000
_RESEAL_STEP = 200


class EndpointStateError(Exception):
    """The endpoint, or a delivery of it, is not in a state in which this can be done; the message says in which."""


class EndpointLimitError(Exception):
    """The account has as many endpoints as an account may have."""


@dataclass(frozen=True, slots=True)
class EndpointSecret:
    """An endpoint with its new secret, which is never to be had again."""

    secret: str = field(repr=False)
    endpoint: Endpoint


def check_events(events: Iterable[str]) -> tuple[str, ...]:
    """The events to subscribe to, each once and in the order of the list of all.

    Raises:
        ValueError: none, or one that there is not.
    """
    named = set(events)
    if not named:
        raise ValueError(f"name at least one event of {', '.join(SUBSCRIBABLE)}")
    if unknown := sorted(named.difference(SUBSCRIBABLE)):
        raise ValueError(
            f"there is no event {unknown[0]!r} to subscribe to; take of {', '.join(SUBSCRIBABLE)}"
        )
    return tuple(event for event in SUBSCRIBABLE if event in named)


def check_description(description: str) -> None:
    """What may be noted on an endpoint.

    Raises:
        ValueError: more than 200 characters, or a NUL.
    """
    if len(description) > DESCRIPTION_MAX:
        raise ValueError(f"a description has at most {DESCRIPTION_MAX} characters")
    if "\0" in description:
        raise ValueError("a description has no NUL characters")


async def create(
    db: Database | Any,
    box: SecretBox,
    account_id: UUID,
    *,
    url: str,
    events: Iterable[str] = SUBSCRIBABLE,
    description: str = "",
    allow_private: bool = False,
) -> EndpointSecret:
    """Make an enabled endpoint of an account; its secret is shown once.

    Raises:
        ValueError: an address, event or description that is not taken.
        NotFoundError: no such account.
        EndpointLimitError: the account has 20.
    """
    check_endpoint_url(url, allow_private=allow_private)
    check_description(description)
    secret = new_secret()
    endpoint = await store.insert(
        db,
        account_id=account_id,
        url=url,
        description=description,
        events=check_events(events),
        secret=box.seal(secret),
        limit=ENDPOINTS_MAX,
    )
    if endpoint is Refusal.ACCOUNT_GONE:
        raise NotFoundError(f"no account {account_id} in this region")
    if endpoint is Refusal.OVER_LIMIT:
        raise EndpointLimitError(f"an account has at most {ENDPOINTS_MAX} webhook endpoints")
    return EndpointSecret(secret, endpoint)


async def find(db: Database, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
    """One endpoint.

    Raises:
        NotFoundError: no such endpoint.
    """
    return found(await store.get(db, endpoint_id, account_id), endpoint_id)


async def page(
    db: Database, account_id: UUID | None, *, limit: int = 100, offset: int = 0
) -> Sequence[Endpoint]:
    """Endpoints of one account, or of all, oldest first."""
    return await store.of_account(db, account_id, limit=limit, offset=offset)


async def change(
    db: Database | Any,
    account_id: UUID | None,
    endpoint_id: UUID,
    *,
    url: str | None = None,
    events: Iterable[str] | None = None,
    description: str | None = None,
    allow_private: bool = False,
) -> Endpoint:
    """Change what is given. What was written before goes to the new address, and is not taken back.

    Raises:
        ValueError: an address, event or description that is not taken.
        NotFoundError: no such endpoint.
    """
    if url is not None:
        check_endpoint_url(url, allow_private=allow_private)
    if description is not None:
        check_description(description)
    changed = await store.change(
        db,
        endpoint_id,
        account_id,
        url=url,
        description=description,
        events=None if events is None else check_events(events),
    )
    return found(changed, endpoint_id)


async def enable(db: Database | Any, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
    """Send from now on; again changes nothing.

    What was being tried when the endpoint was disabled is tried on. What happened meanwhile goes on waiting until
    `replay.deliver_queued`, or expires.

    Raises:
        NotFoundError: no such endpoint.
    """
    return found(await store.enable(db, endpoint_id, account_id), endpoint_id)


async def disable(db: Database | Any, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
    """Send no more; what happens meanwhile waits for 72 hours. Again changes nothing.

    Raises:
        NotFoundError: no such endpoint.
    """
    return found(await store.disable(db, endpoint_id, account_id), endpoint_id)


async def rotate_secret(
    db: Database | Any, box: SecretBox, account_id: UUID | None, endpoint_id: UUID
) -> EndpointSecret:
    """Give an endpoint a new secret, with which everything is signed from now on, tries of old deliveries included.

    Of two rotations at once one wins, so that no secret is shown that does not sign.

    Raises:
        NotFoundError: no such endpoint.
        EndpointStateError: somebody else was faster.
    """
    before = await store.sealed_secret(db, endpoint_id, account_id)
    if before is None:
        raise _missing(endpoint_id)
    secret = new_secret()
    endpoint = await store.replace_secret(db, endpoint_id, before=before, after=box.seal(secret))
    if endpoint is None:
        raise EndpointStateError(f"the secret of endpoint {endpoint_id} was changed at the same time")
    return EndpointSecret(secret, endpoint)


async def delete(db: Database, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
    """Delete an endpoint with its deliveries, also those that wait; returns what it was.

    Raises:
        NotFoundError: no such endpoint.
    """
    endpoint = await find(db, account_id, endpoint_id)
    # In steps, with nothing sent meanwhile: what an endpoint was sent in a month is too much for one statement.
    await disable(db, account_id, endpoint_id)
    while await store.delete_deliveries(db, endpoint_id, batch=_STEP) == _STEP:
        pass
    found(await store.delete(db, endpoint_id, account_id), endpoint_id)
    return endpoint


async def reseal(db: Database, box: SecretBox, previous: SecretBox | None = None) -> int:
    """Seal every secret of a region under the box's current key; returns how many were not yet.

    In bounded transactions, and again after an interruption: what is sealed under that key is passed over.

    Args:
        box: opens the key that is given up, too.
        previous: opens what a server that was not restarted sealed under the key before that.

    Raises:
        SealedSecretError: some secrets are under none of these keys; all others are sealed anew.
    """
    resealed, lost, last = 0, list[UUID](), UUID(int=0)
    while True:
        async with db.transaction() as connection:
            rows = await store.sealed_otherwise(connection, box.head, last, limit=_RESEAL_STEP)
            fresh = []
            for endpoint_id, sealed in rows:
                try:
                    fresh.append((endpoint_id, box.seal(_open(sealed, box, previous))))
                except SealedSecretError:
                    lost.append(endpoint_id)
            await store.write_sealed(connection, fresh)
        resealed += len(fresh)
        if len(rows) < _RESEAL_STEP:
            break
        last = rows[-1][0]
    if lost:
        raise SealedSecretError(
            f"the secrets of {len(lost)} endpoints are under none of these keys, for example of {lost[0]}: "
            "rotate or delete them, then go on"
        )
    return resealed


def found(endpoint: Endpoint | None, endpoint_id: UUID) -> Endpoint:
    """The endpoint that was looked for.

    Raises:
        NotFoundError: no such endpoint.
    """
    if endpoint is None:
        raise _missing(endpoint_id)
    return endpoint


def _missing(endpoint_id: UUID) -> NotFoundError:
    return NotFoundError(f"no webhook endpoint {endpoint_id} in this region")


def _open(sealed: bytes, box: SecretBox, previous: SecretBox | None) -> str:
    try:
        return box.open(sealed)
    except SealedSecretError:
        if previous is None:
            raise
        return previous.open(sealed)
