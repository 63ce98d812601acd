"""Accounts and the plans they may have."""

from pathlib import Path

import pytest

from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import PlanError, load_plans
from babysea_server.db.pool import Database
from babysea_server.kit.calls import Plan
from babysea_server.kit.ids import uuid7


async def test_a_new_account_is_as_it_was_given_and_has_no_credits(db: Database) -> None:
    made = await accounts.create(db, name="Ann", plan="pro", email="ann@example.org")
    assert (made.name, made.plan, made.email, made.credit_balance) == ("Ann", "pro", "ann@example.org", 0)
    assert await accounts.get(db, made.id) == made
    assert await accounts.balance(db, made.id) == 0
    assert await accounts.get(db, uuid7()) is None
    assert await accounts.balance(db, uuid7()) == 0


async def test_accounts_are_listed_oldest_first_in_pages(db: Database) -> None:
    assert await accounts.first(db) is None
    made = [await accounts.create(db, name=name, plan="free") for name in "abc"]
    assert await accounts.first(db) == made[0]
    assert await accounts.page(db, limit=10) == made
    assert await accounts.page(db, limit=2, offset=1) == made[1:]
    assert await accounts.page(db, limit=2, offset=3) == []


def test_the_plans_are_those_of_the_contract() -> None:
    assert list(load_plans().values()) == [
        Plan("free", 60, 2),
        Plan("starter", 120, 5),
        Plan("pro", 300, 20),
        Plan("scale", 1000, 100),
        Plan("enterprise", 3000, 500),
        Plan("unlimited", None, None),
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[free]\nrequests_per_minute = 60", "monthly_credits"),
        (b"[free]\nmonthly_credits = 1\nrequests_per_hour = 60", "requests_per_hour"),
        (b"[free]\nmonthly_credits = 1\ngenerations_in_flight = 0", "generations_in_flight"),
        (b"[free]\nmonthly_credits = 'one'", "monthly_credits"),
        (b"[free", "end of document"),
        (b"[free]\nname = '\xff'", "utf-8"),
    ],
)
def test_a_plans_file_that_cannot_be_used_is_named_with_the_fault(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    file = tmp_path / "plans.toml"
    file.write_bytes(content)
    with pytest.raises(PlanError, match=f"plans file {file}.*{fault}"):
        load_plans(file)


def test_a_missing_plans_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"plans file .*absent\.toml"):
        load_plans(tmp_path / "absent.toml")
