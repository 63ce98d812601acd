"""Commands on custom domains."""

import asyncio
from uuid import UUID

from tests.cli.conftest import Installation

from babysea_server.accounts import domain_store
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database


def test_domains_are_listed_and_removed(installation: Installation, postgres: EmbeddedPostgres) -> None:
    account = installation.account()
    assert installation("domains", "verify", "--account", account).code == 1
    assert installation("domains", "remove", "--account", account).code == 1
    asyncio.run(_added(postgres.dsn("babysea_us"), account))
    (domain,) = [each for each in installation.json("domains", "list") if each["account_id"] == account]
    assert (domain["hostname"], domain["state"], domain["verified_at"]) == (
        "api.example.com",
        "pending",
        None,
    )
    assert installation.json("domains", "remove", "--account", account) == domain
    assert domain not in installation.json("domains", "list")


def test_a_resolver_that_is_none_is_wrong_input(installation: Installation) -> None:
    account = installation.account()
    environment = {"BABYSEA_DNS_RESOLVER": "dns.example.com"}
    refused = installation("domains", "verify", "--account", account, environment=environment)
    assert refused.code == 2
    assert "dns_resolver is an address" in refused.err


async def _added(dsn: str, account: str) -> None:
    db = Database(dsn, name="test", size=1)
    await db.open()
    async with db.transaction() as connection:
        await domain_store.insert(connection, UUID(account), "api.example.com")
    await db.close()
