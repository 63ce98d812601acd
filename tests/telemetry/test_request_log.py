"""What a request leaves in the log, through the whole API; and what it never leaves."""

from collections import Counter
from typing import Any

import pytest
from tests.conftest import MakeDeployment
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7

_ROWS = "SELECT * FROM request_log ORDER BY at, request_id"
_SDK = {
    "User-Agent": "babysea-python/1.2",
    "X-BabySea-SDK-Name": "babysea-python",
    "X-BabySea-SDK-Version": "1.2.0",
    "X-BabySea-SDK-Runtime": "cpython",
    "X-BabySea-SDK-Runtime-Version": "3.12.1",
}
GENERATE = "POST /v1/generate/image/{model_identifier}"


@pytest.fixture
async def api(make_deployment: MakeDeployment) -> Deployment:
    """A deployment that accepts generations and executes none."""
    return await make_deployment(worker=False)


async def rows(deployment: Deployment) -> list[Any]:
    """The log's rows, with what was buffered."""
    assert await deployment.api.regions["us"].requests.flush()
    return await deployment.db.fetch(_ROWS)


async def test_a_request_is_logged_as_it_was_answered(api: Deployment) -> None:
    customer = await make_customer(api)
    before = await api.db.fetchval("SELECT clock_timestamp()")
    answer = await customer.request("GET", "/v1/content/list?limit=7", headers=_SDK)
    [row] = await rows(api)
    after = await api.db.fetchval("SELECT clock_timestamp()")
    key = await api.db.fetchval("SELECT id FROM api_keys WHERE account_id = $1", customer.account_id)
    found = dict(row)
    assert before <= found.pop("at") <= after
    assert 0 < found.pop("duration_us") < 60_000_000
    assert len(found.pop("ip_hash")) == 16
    assert found == {
        "request_id": answer.headers["x-request-id"],
        "account_id": customer.account_id,
        "apikey_id": key,
        "method": "GET",
        "endpoint": "GET /v1/content/list",
        "query": {"limit": 7, "offset": 0},
        "status": 200,
        "error_code": None,
        "replayed": False,
        "user_agent": "babysea-python/1.2",
        "sdk": {
            "name": "babysea-python",
            "version": "1.2.0",
            "runtime": "cpython",
            "runtime_version": "3.12.1",
        },
    }


async def test_what_was_not_sent_is_null(api: Deployment) -> None:
    customer = await make_customer(api)
    del api.client.headers["user-agent"]
    await customer.request("GET", "/v1/status")
    [row] = await rows(api)
    assert (row["query"], row["sdk"], row["user_agent"]) == (None, None, None)


async def test_every_class_of_error_is_logged_with_its_code_and_a_replay_as_one(api: Deployment) -> None:
    customer = await make_customer(api, credits="0.006")
    reader = await make_customer(api, scopes=["account:read"])
    await customer.generate("bfl/flux-schnell", key="k")
    await customer.generate("bfl/flux-schnell", key="k")
    await customer.generate("bfl/flux-schnell", key="k", generation_prompt="another")
    await customer.generate("bfl/flux-schnell")
    await customer.generate("bfl/flux-schnell", generation_colour="red")
    await customer.generate("no/such-model")
    await customer.request("GET", f"/v1/content/{uuid7()}")
    await reader.request("GET", f"/v1/content/{uuid7()}")
    await customer.request(
        "POST",
        "/v1/generate/image/a/b",
        content=b" " * 200_000,
        headers={"Content-Type": "application/json"},
    )
    await api.db.execute("ALTER TABLE accounts RENAME TO accounts_elsewhere")
    await customer.request("GET", "/v1/user/account")
    # Two batches may overlap by what the database took to answer: no order is promised.
    found = Counter(
        (row["endpoint"], row["status"], row["error_code"], row["replayed"]) for row in await rows(api)
    )
    content = "GET /v1/content/{generation_id}"
    expected = [
        (GENERATE, 200, None, False),
        (GENERATE, 200, None, True),
        (GENERATE, 409, "BSE2015", False),
        (GENERATE, 402, "BSE1004", False),
        (GENERATE, 400, "BSE2001", False),
        (GENERATE, 404, "BSE2011", False),
        (content, 404, "BSE3001", False),
        (content, 403, "BSE1003", False),
        (GENERATE, 413, "BSE2010", False),
        ("GET /v1/user/account", 500, "BSE5001", False),
    ]
    assert found == Counter(expected)


async def test_what_no_known_key_sent_is_not_logged(api: Deployment) -> None:
    customer = await make_customer(api, allowlist=["198.51.100.1"])
    refused = [
        await api.client.get("/v1/status"),
        await api.client.get("/v1/status", headers={"Authorization": "Bearer bye_" + "x" * 40}),
        await customer.request("GET", "/v1/status"),  # not from an allowed address
        await customer.request("GET", "/v1/nothing"),
        await customer.request("GET", "/v1/usage?days=91"),
    ]
    assert [answer.status_code for answer in refused] == [401, 401, 403, 403, 403]
    assert await rows(api) == []


async def test_neither_keys_nor_prompts_nor_bodies_nor_addresses_are_anywhere_in_the_log(
    api: Deployment,
) -> None:
    customer = await make_customer(api)
    secrets = ["tangerine lighthouse", customer.key, customer.key[:9], "127.0.0.1", "whsec_", "idem-potent-1"]
    made = await customer.generate(generation_prompt=secrets[0], key=secrets[5], generation_ratio="16:9")
    generation = made.json()["data"]["generation_id"]
    await customer.request("GET", f"/v1/content/{generation}", headers={"X-Secret": "whsec_1", "Cookie": "c"})
    await customer.generate(generation_prompt=secrets[0], generation_unknown=secrets[0])
    found = await rows(api)
    assert len(found) == 3
    text = await api.db.fetchval("SELECT string_agg(r::text, ' ') FROM request_log r")
    for secret in [*secrets, generation, "16:9"]:
        assert secret not in text
        assert secret.encode().hex() not in text


async def test_the_log_is_written_without_being_asked(customer: Customer) -> None:
    await customer.request("GET", "/v1/status")

    async def written() -> bool:
        return bool(await customer.deployment.db.fetchval("SELECT count(*) FROM request_log"))

    await eventually(written)


async def test_what_is_buffered_when_an_api_ends_is_written(
    make_deployment: MakeDeployment, db: Database
) -> None:
    deployment = await make_deployment(worker=False)
    customer = await make_customer(deployment)
    await customer.request("GET", "/v1/status")
    await deployment.api.close()
    assert await db.fetchval("SELECT count(*) FROM request_log") == 1
