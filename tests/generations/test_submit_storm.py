"""A thousand submits at once against credit for six hundred: exactly six hundred are accepted."""

import asyncio
from collections import Counter
from typing import Any

from tests.conftest import MakeDeployment
from tests.generations import admitting
from tests.support import Customer, eventually, make_customer

from babysea_server.ledger.verify import verify

SUBMITS, AFFORDABLE = 1000, 600
#: Patience for a busy machine; nothing here is about time.
PATIENT: dict[str, Any] = {"admission_deadline_s": 60}


async def storm(*customers: Customer) -> list[str]:
    """Submit all at once, in turns through each customer; ids of what was accepted, all others BSE1004."""
    responses = await asyncio.gather(
        *[customers[number % len(customers)].generate() for number in range(SUBMITS)]
    )
    refused = Counter(
        (response.status_code, response.json()["error"]["code"])
        for response in responses
        if response.status_code != 200
    )
    assert refused == {(402, "BSE1004"): SUBMITS - AFFORDABLE}
    ids = [response.json()["data"]["generation_id"] for response in responses if response.status_code == 200]
    assert len(set(ids)) == AFFORDABLE
    return ids


async def test_exactly_what_can_be_paid_for_is_accepted_and_after_settlement_nothing_is_left(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(**PATIENT)
    customer = await make_customer(deployment, credits="0.6")
    ids = await storm(customer)

    async def all_succeeded() -> bool:
        rows = await deployment.db.fetch("SELECT id FROM generations WHERE status = 'succeeded'")
        return {str(row["id"]) for row in rows} == set(ids)

    await eventually(all_succeeded, within_s=120)
    assert await customer.balance() == 0
    assert await deployment.differences() == []


async def test_two_api_processes_on_one_database_never_accept_one_too_many(
    make_deployment: MakeDeployment,
) -> None:
    first = await make_deployment(worker=False, **PATIENT)
    second = await make_deployment(worker=False, **PATIENT)
    customer = await make_customer(first, credits="0.6")
    elsewhere = Customer(second, customer.account_id, customer.key)
    await storm(customer, elsewhere)
    assert await customer.balance() == 0
    assert await admitting.settle_all(first.db) == AFFORDABLE
    assert await customer.balance() == 0
    assert await verify(first.db) == []
