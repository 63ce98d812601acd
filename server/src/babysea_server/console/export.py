"""What a user takes along: one JSON document, written while it is read, however long it gets."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts.user_store import User
from babysea_server.console import export_store as store
from babysea_server.db.pool import Database

_ROWS = 500
_BEFORE_ALL_IDS = UUID(int=0)

Pages = Callable[[Any], Awaitable[Sequence[Any]]]


async def user_data(db: Database, region: str, user: User, now: datetime) -> AsyncIterator[bytes]:
    """The document in pieces: the profile, and all of the personal accounts; of other accounts what the user did."""
    memberships = await store.memberships(db, user.id)
    head = {
        "exported_at": now,
        "region": region,
        "profile": {
            "id": user.id,
            "email": user.email,
            "name": user.name,
            "created_at": user.created_at,
            "signed_in_at": user.signed_in_at,
            "has_password": user.password is not None,
            "password_changed_at": user.password_changed_at,
            "has_second_step": user.totp_secret is not None,
        },
        "memberships": [dict(row) for row in memberships],
        "sessions": [dict(row) for row in await store.sessions(db, user.id)],
        "identities": [dict(row) for row in await store.identities(db, user.id)],
    }
    yield _open(head) + b',"activity":['
    first = True
    for row in memberships:
        async for piece in _rows(_activity(db, row["account_id"], user.id), 0, first=first):
            first = False
            yield piece
    yield b'],"accounts":['
    personal = [
        row["account_id"] for row in memberships if row["is_personal"] and row["role"] == "primary-owner"
    ]
    for number, account_id in enumerate(personal):
        if number:
            yield b","
        async for piece in _account(db, account_id):
            yield piece
    yield b"]}\n"


async def _account(db: Database, account_id: UUID) -> AsyncIterator[bytes]:
    account = await store.account(db, account_id)
    yield _open({"id": account_id} if account is None else dict(account))
    lists: tuple[tuple[str, Pages, Any], ...] = (
        ("keys", lambda after: store.keys(db, account_id, after=after, limit=_ROWS), _BEFORE_ALL_IDS),
        ("generations", lambda after: _generations(db, account_id, after), _BEFORE_ALL_IDS),
        ("ledger", lambda after: store.ledger(db, account_id, after=after, limit=_ROWS), 0),
    )
    for name, pages, start in lists:
        yield f',"{name}":['.encode()
        async for piece in _rows(pages, start):
            yield piece
        yield b"]"
    yield b"}"


async def _generations(db: Database, account_id: UUID, after: UUID) -> Sequence[Any]:
    rows = [dict(row) for row in await store.generations(db, account_id, after=after, limit=_ROWS)]
    for row in rows:
        # Where a file is kept is nothing that anybody can use; what it is, is.
        row["outputs"] = [
            {name: value for name, value in output.items() if name != "key"}
            for output in row["outputs"] or ()
        ]
    return rows


def _activity(db: Database, account_id: UUID, user_id: UUID) -> Pages:
    return lambda after: store.activity(db, account_id, user_id, after=after, limit=_ROWS)


async def _rows(pages: Pages, start: Any, *, first: bool = True) -> AsyncIterator[bytes]:
    after = start
    while rows := await pages(after):
        text = b",".join(msgspec.json.encode(dict(row)) for row in rows)
        yield text if first else b"," + text
        first = False
        after = rows[-1]["id"]


def _open(value: Any) -> bytes:
    """A JSON object without its end, so that more can follow."""
    return msgspec.json.encode(value)[:-1]
