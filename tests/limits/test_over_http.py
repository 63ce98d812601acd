"""Rates and failed authentications as callers meet them: headers on every answer, 429 in time."""

import asyncio

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.limits.conftest import MakeApi
from tests.limits.counting import PATIENT_S
from tests.limits.servers import RedisServer, Wire, needs_redis
from tests.support import Customer, ManualClock, eventually, make_customer

from babysea_server.limits.windows import RETRY_S
from babysea_server.settings import SettingsError

_BAD = {"Authorization": "Bearer bye_" + "x" * 40}


def rate(response: httpx.Response) -> tuple[str | None, ...]:
    """Limit, remaining, reset, retry-after."""
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")
    return tuple(response.headers.get(name) for name in names)


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


async def test_every_authenticated_answer_tells_the_rate(make_api: MakeApi, clock: ManualClock) -> None:
    api = await make_api()
    customer = await make_customer(
        api, plan="free", scopes=["account:read", "generation:read", "generation:write"]
    )
    reset = str(int(clock.now().timestamp()) + 60)
    missing = "/v1/content/0198f6b4-5d18-7f02-a6c9-83e1b4d7f265"
    answers = [
        await customer.request("GET", "/v1/status"),
        await customer.request("POST", "/v1/generate/image/sandbox/image", json={}),
        await customer.request("GET", "/v1/library/models"),
        await customer.request("GET", missing),
        await customer.request("POST", "/v1/generate/image/no/model", json={}),
        await customer.request("GET", "/v1/status"),
        await customer.request("GET", "/v1/library/models"),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 403, 404, 404, 429, 403]
    assert [rate(answer)[:3] for answer in answers] == [
        ("5", remaining, reset) for remaining in ("4", "3", "2", "1", "0", "0", "0")
    ]
    assert [rate(answer)[3] for answer in answers] == [None] * 5 + ["60", None]
    refused = answers[5].json()["error"]
    assert (refused["code"], refused["retryable"]) == ("BSE1005", True)
    assert refused["details"] == {"retry_after_seconds": 60, "limit": 5}
    clock.advance(60)
    assert rate(await customer.request("GET", "/v1/status"))[:2] == ("5", "4")


async def test_too_many_in_flight_is_429_with_the_rate_beside_it(
    make_deployment: MakeDeployment, plans_file: str
) -> None:
    # On the machine's own clock, by which the database ends admissions; so a new minute may begin anywhere.
    customer = await make_customer(await make_deployment(worker=False, plans_file=plans_file), plan="free")
    accepted = await customer.generate()
    assert accepted.status_code == 200, accepted.text
    refused = await customer.generate()
    assert (refused.status_code, code(refused)) == (429, "BSE1009")
    assert rate(refused)[0] == "5"
    assert rate(refused)[1] in ("3", "4")
    assert int(refused.headers["retry-after"]) >= 1


async def test_an_unlimited_plan_and_an_unknown_caller_are_told_nothing(make_api: MakeApi) -> None:
    api = await make_api()
    customer = await make_customer(api)
    answers = [
        await customer.request("GET", "/v1/status"),
        await api.client.get("/v1/status"),
        await api.client.get("/v1/status", headers=_BAD),
        await customer.request("GET", "/v1/nowhere"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 401, 403]
    assert {rate(answer) for answer in answers} == {(None,) * 4}


async def test_a_plan_that_left_the_file_allows_nothing(make_api: MakeApi) -> None:
    api = await make_api()
    customer = await make_customer(api, plan="free")
    await api.db.execute("UPDATE accounts SET plan = 'gone' WHERE id = $1", customer.account_id)
    refused = await customer.request("GET", "/v1/status")
    assert (refused.status_code, code(refused)) == (429, "BSE1005")
    assert rate(refused)[:2] == ("0", "0")


async def test_two_apis_of_a_region_share_an_accounts_rate(make_api: MakeApi) -> None:
    one = await make_customer(await make_api(counters_timeout_s=PATIENT_S), plan="free")
    two = Customer(await make_api(counters_timeout_s=PATIENT_S), one.account_id, one.key)
    answers = await asyncio.gather(*(each.request("GET", "/v1/status") for each in [one, two] * 6))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 7


async def test_who_tries_keys_is_refused_before_the_key_is_looked_at(
    make_api: MakeApi, clock: ManualClock
) -> None:
    api = await make_api(auth_failures_per_minute=3)
    elsewhere = await make_api("198.51.100.9", auth_failures_per_minute=3)
    customer = await make_customer(api)
    for _ in range(5):  # nothing is guessed by sending nothing
        assert code(await api.client.get("/v1/status")) == "BSE1001"
    for _ in range(3):
        assert code(await api.client.get("/v1/status", headers=_BAD)) == "BSE1002"
    answers = [
        await api.client.get("/v1/status", headers=_BAD),
        await api.client.get("/v1/status"),
        await customer.request("GET", "/v1/status"),
    ]
    assert [(answer.status_code, code(answer)) for answer in answers] == [(429, "BSE1006")] * 3
    assert {rate(answer) for answer in answers} == {(None, None, None, "60")}
    assert answers[0].json()["error"]["retryable"] is True
    assert (
        await Customer(elsewhere, customer.account_id, customer.key).request("GET", "/v1/status")
    ).is_success
    clock.advance(60)
    assert (await customer.request("GET", "/v1/status")).is_success


async def test_behind_a_trusted_proxy_each_client_is_counted_by_itself(make_api: MakeApi) -> None:
    api = await make_api("10.1.2.3", auth_failures_per_minute=1, trusted_proxies=["10.0.0.0/8"])

    async def guess(client: str) -> str:
        return code(await api.client.get("/v1/status", headers={**_BAD, "X-Forwarded-For": client}))

    assert [await guess("192.0.2.1"), await guess("192.0.2.1"), await guess("192.0.2.2")] == [
        "BSE1002",
        "BSE1006",
        "BSE1002",
    ]


async def test_a_redis_url_that_cannot_be_used_stops_the_start_and_is_not_shown(make_api: MakeApi) -> None:
    with pytest.raises(SettingsError, match="redis_url: not a redis://") as raised:
        await make_api(redis_url="http://user:hunter2@example.com")
    assert "hunter2" not in str(raised.value)


@needs_redis
@pytest.mark.parametrize("how", ["killed", "stalled"])
async def test_a_redis_that_is_away_refuses_nobody_within_the_limit_and_loses_no_count(
    redis_server: RedisServer, make_api: MakeApi, clock: ManualClock, how: str
) -> None:
    async with Wire(redis_server.port).open() as wire:
        url = redis_server.url if how == "killed" else wire.url
        one = await make_customer(await make_api(redis_url=url), plan="free")
        two = Customer(await make_api(redis_url=url), one.account_id, one.key)
        told = [rate(await one.request("GET", "/v1/status"))[1]]
        if how == "killed":
            redis_server.kill()
        else:
            wire.flowing.clear()
        told += [rate(await one.request("GET", "/v1/status"))[1] for _ in range(2)]
        assert told == ["4", "3", "2"]
        assert [rate(await two.request("GET", "/v1/status"))[1]] == ["4"]
        if how == "killed":
            await redis_server.start()
        else:
            wire.flowing.set()
        clock.advance(RETRY_S)

        async def asked_again() -> bool:
            clock.advance(RETRY_S / 100)
            return not any(each.deployment.api.regions["us"]._rates.recovering for each in (one, two))

        await eventually(asked_again)
        # The three of one and the one of two are known to both again.
        last = await two.request("GET", "/v1/status")
        assert (last.status_code, rate(last)[1]) == (200, "0")
        assert (await two.request("GET", "/v1/status")).status_code == 429
