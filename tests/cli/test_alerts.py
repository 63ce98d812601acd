"""Commands on what an account is warned of and told."""

import asyncio
from uuid import UUID

import pytest
from tests.cli.conftest import Installation

from babysea_server.accounts.notices import notify
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database


@pytest.fixture
def account(installation: Installation) -> str:
    return installation.account()


def test_thresholds_are_shown_set_and_given_up_again(installation: Installation, account: str) -> None:
    shown = installation.json("alerts", "show", "--account", account)
    assert shown == {
        "account_id": account,
        "region": "us",
        "credit_balance": shown["credit_balance"],
        "thresholds": [0.5],
        "is_default": True,
        "armed": [0.5] if shown["credit_balance"] >= 0.5 else [],
        "last_fired_at": {},
    }
    installation.json("credits", "add", "--account", account, "--amount", "10")
    changed = installation.json(
        "alerts", "set", "--account", account, "--threshold", "5", "--threshold", "1000000.25"
    )
    assert (changed["thresholds"], changed["is_default"], changed["armed"]) == ([1000000.25, 5], False, [5])
    assert installation.json("alerts", "show", "--account", account) == changed
    assert installation.json("alerts", "set", "--account", account)["is_default"]


@pytest.mark.parametrize("threshold", ["0", "-1", "x", "0.0000001", "nan"])
def test_a_threshold_that_cannot_be_is_wrong_input(
    installation: Installation, account: str, threshold: str
) -> None:
    refused = installation("alerts", "set", "--account", account, "--threshold", threshold)
    assert refused.code == 2
    assert refused.err.startswith("error: ")


def test_alerts_of_nobody_are_a_fault(installation: Installation) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    assert installation("alerts", "show", "--account", nobody).code == 1
    assert installation("alerts", "set", "--account", nobody, "--threshold", "1").code == 1


def test_notices_are_listed(installation: Installation, account: str, postgres: EmbeddedPostgres) -> None:
    assert installation("notices", "list", "--account", account).out == "no notices\n"
    asyncio.run(_told(postgres.dsn("babysea_us"), account))
    (notice,) = installation.json("notices", "list", "--account", account, "--unread")
    assert (notice["kind"], notice["text"], notice["read_at"], notice["mail"]) == (
        "test",
        "A test.",
        None,
        "due",
    )


async def _told(dsn: str, account: str) -> None:
    db = Database(dsn, name="test", size=1)
    await db.open()
    await notify(db, UUID(account), "test", "A test.", {})
    await db.close()
