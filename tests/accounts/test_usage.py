"""`GET /v1/usage`: what is told is what a recount of requests and attempts gives."""

import asyncio
import random
from typing import Any

import msgspec
import pytest
from tests.conftest import MakeDeployment
from tests.execution.scripted import DONE, Script, Scripted, accepted
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.accounts.usage import GENERATE
from babysea_server.accounts.wire import UsageData
from babysea_server.contract.operations import OPERATIONS
from babysea_server.db.pool import Database
from babysea_server.kit import money
from babysea_server.kit.ids import uuid7
from babysea_server.providers.base import Failure, Finished, Output, Refused
from babysea_server.providers.registry import Route, everywhere

MODEL = "bfl/flux-schnell"
ENDPOINT = "POST /v1/generate/image/{model_identifier}"
_PROVIDERS = """
    SELECT provider, submissions, used, cancelled, discarded, failed, estimated_cost, wasted_cost
    FROM usage_providers WHERE account_id = $1 ORDER BY provider"""
_RECOUNT = """
    SELECT provider, count(*) AS submissions,
        count(*) FILTER (WHERE outcome = 'used') AS used, count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE outcome = 'discarded') AS discarded,
        count(*) FILTER (WHERE outcome = 'failed') AS failed,
        coalesce(sum(estimated_cost) FILTER (WHERE outcome <> 'pending'), 0) AS estimated_cost,
        coalesce(sum(estimated_cost) FILTER (WHERE outcome NOT IN ('pending', 'used')), 0) AS wasted_cost
    FROM attempts WHERE account_id = $1 GROUP BY provider ORDER BY provider"""


async def usage(customer: Customer, days: int | None = None) -> dict[str, Any]:
    """The account's usage, with what was buffered before; the request for it is not in it yet."""
    assert await customer.deployment.api.regions["us"].requests.flush()
    answer = await customer.request("GET", "/v1/usage" if days is None else f"/v1/usage?days={days}")
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    msgspec.convert(data, UsageData)
    return data


async def test_an_account_without_traffic_has_zeros(make_deployment: MakeDeployment) -> None:
    customer = await make_customer(await make_deployment(worker=False))
    assert await usage(customer) == {
        "account_id": str(customer.account_id),
        "usage_period_days": 30,
        "usage_credit_balance": 100,
        "usage_total_requests": 0,
        "usage_total_success": 0,
        "usage_total_client_errors": 0,
        "usage_total_server_errors": 0,
        "usage_total_generations": 0,
        "usage_total_provider_submissions": 0,
        "usage_total_estimated_cost": 0,
        "usage_endpoints": [],
        "usage_providers": [],
    }


async def test_requests_are_told_by_endpoint_and_code_and_replays_are_no_generations(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(worker=False)
    customer, stranger = await make_customer(deployment), await make_customer(deployment)
    await stranger.request("GET", "/v1/status")
    for _ in range(3):
        await customer.generate(MODEL, key="k")
    await customer.generate("sandbox/video", "video", generation_duration=5)
    await customer.generate(MODEL, generation_colour="red")
    for _ in range(2):
        await customer.request("GET", f"/v1/content/{uuid7()}")
    data = await usage(customer)
    totals = {name: value for name, value in data.items() if name.startswith("usage_total")}
    assert totals == {
        "usage_total_requests": 7,
        "usage_total_success": 4,
        "usage_total_client_errors": 3,
        "usage_total_server_errors": 0,
        "usage_total_generations": 2,
        "usage_total_provider_submissions": 0,
        "usage_total_estimated_cost": 0,
    }
    shape = ("endpoint", "total_requests", "success_count", "client_error_count", "server_error_count")
    assert [(*(each[name] for name in shape), each["error_codes"]) for each in data["usage_endpoints"]] == [
        ("GET /v1/content/{generation_id}", 2, 0, 2, 0, {"BSE3001": 2}),
        (ENDPOINT, 4, 3, 1, 0, {"BSE2001": 1}),
        ("POST /v1/generate/video/{model_identifier}", 1, 1, 0, 0, {}),
    ]
    assert [each["endpoint"] for each in (await usage(customer))["usage_endpoints"]][1] == "GET /v1/usage"


async def test_a_server_error_is_told_as_one(make_deployment: MakeDeployment) -> None:
    customer = await make_customer(await make_deployment(worker=False))
    await customer.request("GET", "/v1/status")
    await customer.deployment.db.execute("ALTER TABLE usage_providers RENAME TO elsewhere")
    assert (await customer.request("GET", "/v1/usage")).status_code == 500
    await customer.deployment.db.execute("ALTER TABLE elsewhere RENAME TO usage_providers")
    data = await usage(customer)
    assert (data["usage_total_requests"], data["usage_total_server_errors"]) == (2, 1)
    assert data["usage_endpoints"][1]["error_codes"] == {"BSE5001": 1}


def test_only_generate_operations_are_counted_as_generations() -> None:
    counted = [
        operation.id
        for operation in OPERATIONS
        if f"{operation.method} {operation.template}".startswith(GENERATE)
    ]
    assert counted == ["generate"]


@pytest.mark.parametrize("days", [1, 30, 90])
async def test_the_window_is_whole_days_with_today_the_last(
    make_deployment: MakeDeployment, days: int
) -> None:
    customer = await make_customer(await make_deployment(worker=False))
    db = customer.deployment.db
    for statement in (
        """INSERT INTO usage_daily SELECT $1, (now() AT TIME ZONE 'UTC')::date - age, $3, 2, '', 10 ^ i, 0
           FROM unnest($2::int[]) WITH ORDINALITY AS u (age, i)""",
        """INSERT INTO usage_providers (account_id, day, provider, submissions)
           SELECT $1, (now() AT TIME ZONE 'UTC')::date - age, $3, 10 ^ i
           FROM unnest($2::int[]) WITH ORDINALITY AS u (age, i)""",
    ):
        # Today's are tens; of the last day in the window hundreds; of the one before it thousands.
        ages = [0, days - 1, days] if days > 1 else [0, days]
        await db.execute(statement, customer.account_id, ages, "fal")
    data = await usage(customer, days)
    assert data["usage_period_days"] == days
    inside = 110 if days > 1 else 10
    assert (data["usage_total_requests"], data["usage_total_provider_submissions"]) == (inside, inside)


# ------------------------------------------------------------------------------------------- providers


def _priced() -> Scripted:
    """Providers that are used, fail, fail after a bill, or deliver nothing."""
    return Scripted(
        replicate=Script(
            [accepted(), Refused(Failure.REFUSED_BUSY, "busy"), Refused(Failure.FAILED, "no", cost_micro=300)]
        ),
        fal=Script([accepted()], [Finished([], cost_micro=700), DONE, Finished([])]),
        cloudflare=Script([Finished([Output(data=DONE.outputs[0].data)], cost_micro=1200)]),
    )


async def test_the_told_usage_is_a_recount_of_the_attempts_of_a_mixed_workload(
    make_deployment: MakeDeployment,
) -> None:
    provider = _priced()
    deployment = await make_deployment(
        registries=lambda _settings, catalog, _db: everywhere([*catalog.providers], Route(provider, provider))
    )
    customer, other = await make_customer(deployment), await make_customer(deployment)
    orders = [
        "replicate, fal, cloudflare",
        "fal, replicate",
        "cloudflare",
        "fal",
        "replicate, cloudflare",
        "replicate",
    ]
    for order in orders * 3:
        await customer.made(MODEL, generation_provider_order=order)
    await other.made(MODEL, generation_provider_order="cloudflare")
    rolled_up = await deployment.db.fetch(_PROVIDERS, customer.account_id)
    assert rolled_up == await deployment.db.fetch(_RECOUNT, customer.account_id)
    assert [row["provider"] for row in rolled_up] == ["cloudflare", "fal", "replicate"]
    assert all(row["used"] and row["estimated_cost"] for row in rolled_up)
    assert sum(row["failed"] for row in rolled_up) > 5
    assert any(0 < row["wasted_cost"] < row["estimated_cost"] for row in rolled_up)

    data = await usage(customer)
    assert data["usage_total_provider_submissions"] == sum(row["submissions"] for row in rolled_up)
    assert data["usage_total_estimated_cost"] == money.credits(
        sum(row["estimated_cost"] for row in rolled_up)
    )
    assert data["usage_providers"] == [
        {
            "provider": row["provider"],
            "total_submissions": row["submissions"],
            "used_count": row["used"],
            "cancelled_count": row["cancelled"],
            "discarded_count": row["discarded"],
            "failed_count": row["failed"],
            "total_estimated_cost": money.credits(row["estimated_cost"]),
            "wasted_estimated_cost": money.credits(row["wasted_cost"]),
        }
        for row in rolled_up
    ]


async def test_the_sandboxes_failures_are_counted_as_the_attempt_log_has_them(deployment: Deployment) -> None:
    customer = await make_customer(deployment)
    prompts = [
        "ok",
        "[sandbox:replicate=fail]",
        "[sandbox:replicate=refuse_input,fal=no_output]",
        "[sandbox:refuse_policy]",
        "[sandbox:never_sent]",
        "[sandbox:replicate=lose_answer]",
        "[sandbox:replicate=lose_request]",
    ]
    for prompt in prompts * 2:
        answer = await customer.generate(MODEL, generation_prompt=prompt)
        assert answer.status_code == 200

    async def done() -> bool:
        return not await deployment.db.fetchval(
            "SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')"
        )

    await eventually(done)
    rolled_up = await deployment.db.fetch(_PROVIDERS, customer.account_id)
    assert rolled_up == await deployment.db.fetch(_RECOUNT, customer.account_id)
    assert sum(row["used"] for row in rolled_up) == 10
    assert sum(row["failed"] for row in rolled_up) == 2 * (1 + 2 + 1 + 3 + 1)


COSTS: dict[str, tuple[int | None, str, str | None, int]] = {
    "used": (None, "used", None, 500),
    "used and billed": (200, "used", None, 200),
    "thrown away": (None, "discarded", None, 500),
    "cancelled": (None, "cancelled", None, 0),
    "cancelled and billed": (70, "cancelled", None, 70),
    "refused": (None, "failed", "refused_busy", 0),
    "never sent": (None, "failed", "never_sent", 0),
    "failed": (None, "failed", "failed", 0),
    "failed and billed": (40, "failed", "failed", 40),
    "too late": (None, "failed", "timed_out", 500),
    "unknown": (None, "failed", "outcome_unknown", 500),
    "nothing usable": (None, "failed", "bad_output", 500),
    "known to be free": (0, "failed", "bad_output", 0),
}


async def test_what_an_attempt_is_taken_to_have_cost(db: Database) -> None:
    for told, outcome, failure, cost in COSTS.values():
        found = await db.fetchval(
            "SELECT attempt_cost_v1($1, 500, $2::attempt_outcome, $3::failure_class)", told, outcome, failure
        )
        assert found == cost, (told, outcome, failure)


async def test_batches_of_attempts_in_any_order_never_deadlock_and_are_counted_exactly(db: Database) -> None:
    """As several workers write them: each batch touches many roll-ups, in an order of its own."""
    accounts = [uuid7() for _ in range(4)]

    async def work(chance: random.Random) -> None:
        for _ in range(15):
            ids = [uuid7() for _ in range(30)]
            await db.execute(
                """INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter,
                                         estimated_cost)
                   SELECT id, id, account, 'a/b', 1, provider, 's', 7
                   FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS u (id, account, provider)""",
                ids,
                chance.choices(accounts, k=30),
                chance.choices(["bfl", "cloudflare", "fal", "replicate"], k=30),
            )
            await db.execute(
                """UPDATE attempts a SET outcome = u.outcome, resolved_at = now(),
                          failure = CASE u.outcome WHEN 'failed' THEN 'failed'::failure_class END
                   FROM unnest($1::uuid[], $2::attempt_outcome[]) AS u (id, outcome) WHERE a.id = u.id""",
                ids[:25],
                chance.choices(["used", "failed", "cancelled", "discarded"], k=25),
            )

    await asyncio.gather(*(work(random.Random(seed)) for seed in range(6)))
    for account in accounts:
        assert await db.fetch(_PROVIDERS, account) == await db.fetch(_RECOUNT, account)
    assert await db.fetchval("SELECT sum(submissions) FROM usage_providers") == 6 * 15 * 30


async def test_an_attempt_is_counted_on_the_day_it_was_submitted_and_once(db: Database) -> None:
    """Ended a day later, written again afterwards, and deleted: neither counts again."""
    account, ids = uuid7(), [uuid7() for _ in range(3)]
    await db.execute(
        """INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter, estimated_cost,
                                 submitted_at)
           SELECT id, id, $2, 'a/b', 1, CASE n WHEN 3 THEN 'fal' ELSE 'bfl' END, 's', 100, now() - interval '1 day'
           FROM unnest($1::uuid[]) WITH ORDINALITY AS u (id, n)""",
        ids,
        account,
    )
    ending = (
        "UPDATE attempts SET outcome = $2::attempt_outcome, resolved_at = now() WHERE id = ANY ($1::uuid[])"
    )
    await db.execute(ending, ids[:1], "used")
    await db.execute(ending, ids[1:], "discarded")
    await db.execute("UPDATE attempts SET error_message = 'seen', upstream_id = 'x'")
    counts = [("bfl", 2, 1, 0, 1, 0, 200, 100), ("fal", 1, 0, 0, 1, 0, 100, 100)]
    assert [tuple(row) for row in await db.fetch(_PROVIDERS, account)] == counts
    days = await db.fetch("SELECT DISTINCT (now() AT TIME ZONE 'UTC')::date - day FROM usage_providers")
    assert [row[0] for row in days] == [1]
    # A bill that comes later changes what the attempt cost, and nothing else.
    await db.execute("UPDATE attempts SET estimated_cost = 30 WHERE provider = 'fal'")
    await db.execute("UPDATE attempts SET estimated_cost = 120 WHERE outcome = 'used'")
    counts = [("bfl", 2, 1, 0, 1, 0, 220, 100), ("fal", 1, 0, 0, 1, 0, 30, 30)]
    assert [tuple(row) for row in await db.fetch(_PROVIDERS, account)] == counts
    await db.execute("DELETE FROM attempts")
    assert [tuple(row) for row in await db.fetch(_PROVIDERS, account)] == counts
