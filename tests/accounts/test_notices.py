"""Notices: told, listed in pages, read."""

from tests.support import make_account

from babysea_server.accounts import notices
from babysea_server.db.pool import Database


async def test_notices_are_listed_newest_first_in_pages(db: Database) -> None:
    account_id, _ = await make_account(db)
    other_id, _ = await make_account(db)
    made = [await notices.notify(db, account_id, "test", f"Number {n}.", {"n": n}) for n in range(3)]
    await notices.notify(db, other_id, "test", "For somebody else.", {})

    first = await notices.page(db, account_id, limit=2)
    assert [notice.id for notice in first] == [made[2], made[1]]
    assert (first[0].kind, first[0].text, first[0].data, first[0].read_at, first[0].mail_state) == (
        "test",
        "Number 2.",
        {"n": 2},
        None,
        "due",
    )
    rest = await notices.page(db, account_id, limit=2, before=first[-1].id)
    assert [notice.id for notice in rest] == [made[0]]


async def test_notices_are_read_once_and_only_by_their_account(db: Database) -> None:
    account_id, _ = await make_account(db)
    other_id, _ = await make_account(db)
    made = [await notices.notify(db, account_id, "test", "A test.", {}) for _ in range(3)]
    foreign = await notices.notify(db, other_id, "test", "A test.", {})

    assert await notices.mark_read(db, account_id, [made[0], foreign]) == 1
    assert await notices.mark_read(db, account_id, [made[0]]) == 0
    unread = await notices.page(db, account_id, unread=True)
    assert [notice.id for notice in unread] == [made[2], made[1]]
    assert await notices.mark_read(db, account_id) == 2
    assert await notices.page(db, account_id, unread=True) == []
    assert [notice.read_at for notice in await notices.page(db, other_id)] == [None]


async def test_a_notice_belongs_to_the_transaction_that_tells(db: Database) -> None:
    account_id, _ = await make_account(db)
    async with db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await notices.notify(connection, account_id, "test", "A test.", {})
        await transaction.rollback()
    assert await notices.page(db, account_id) == []
