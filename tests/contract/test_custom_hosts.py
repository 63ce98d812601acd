"""A custom domain is another host of its region, for one account's keys; whatever else is not ours stays refused."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from tests.contract.asgi import ask, http_scope
from tests.contract.conftest import FakeKeys, TurnedClock, echo, everywhere, no_limit

from babysea_server.contract.firewall import Firewall
from babysea_server.contract.gateway import Gateway
from babysea_server.contract.hosts import CustomHost, RegionHosts

ACCOUNT = UUID("0198f6b4-5d18-7f02-a6c9-83e1b4d7f265")
KEY = ("authorization", "Bearer bye_good")


def custom_host(name: str) -> CustomHost | None:
    return CustomHost("jp", ACCOUNT) if name == "media.customer.example" else None


@pytest.fixture
def gateway(
    documents: Mapping[str, dict[str, Any]], hosts: Mapping[str, str], keys: FakeKeys, clock: TurnedClock
) -> Gateway:
    firewall = Firewall(documents, hosts, custom_host)
    return Gateway(firewall, keys, no_limit, lambda _request: None, everywhere(echo), clock)


@pytest.mark.parametrize("host", ["media.customer.example", "MEDIA.customer.example:443"])
async def test_it_is_a_host_of_its_region_for_keys_of_its_account(
    gateway: Gateway, keys: FakeKeys, host: str
) -> None:
    answer = await ask(gateway, http_scope(headers=[KEY], host=host))
    assert (answer.status, answer.json["data"]["region"]) == (200, "jp")
    assert keys.accounts == [ACCOUNT]


async def test_on_the_installations_own_hosts_no_account_is_named(gateway: Gateway, keys: FakeKeys) -> None:
    assert (await ask(gateway, http_scope(headers=[KEY]))).status == 200
    assert keys.accounts == [None]


@pytest.mark.parametrize("host", ["other.customer.example", "customer.example", "x.media.customer.example"])
async def test_any_other_name_is_refused_before_a_key_is_looked_at(
    gateway: Gateway, keys: FakeKeys, host: str
) -> None:
    answer = await ask(gateway, http_scope(headers=[KEY], host=host))
    assert (answer.status, answer.code) == (403, "BSE1010")
    assert keys.calls == []


def test_custom_domains_are_found_by_name_and_never_listed(hosts: Mapping[str, str]) -> None:
    known = RegionHosts(hosts, custom_host)
    assert known["media.customer.example"] == "jp"
    assert known.get("other.customer.example") is None
    assert list(known) == list(hosts)
    assert len(known) == len(hosts)
