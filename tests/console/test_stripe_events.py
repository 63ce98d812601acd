"""Events of the payment service: signed, each once, in any order, whatever is away."""

import json
import time

import asyncpg
import pytest
from tests.console.selling import begun, console, customer_of, owner, send, state, stripe, tell
from tests.console.stripe_emulator import WEBHOOK_SECRET, StripeEmulator, signed
from tests.console.support import ConsoleClient
from tests.support import Deployment

from babysea_server.accounts import billing_store
from babysea_server.db.pool import Database

__all__ = ["console", "owner", "stripe"]  # fixtures


async def test_what_is_not_signed_with_the_secret_changes_nothing(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await begun(owner, stripe)
    body = stripe.event("checkout.session.completed", stripe.pay(session_id))
    right = signed(body)["stripe-signature"]
    answers = [
        await send(owner, body, secret="whsec_other"),
        await send(owner, body, at=time.time() - 301),
        await owner.http.post("/stripe/events", content=body),
        await owner.http.post("/stripe/events", content=body + b" ", headers={"stripe-signature": right}),
        await owner.http.post(
            "/stripe/events", content=body, headers={b"stripe-signature": "t=1,v1=é".encode()}
        ),
        await owner.http.post("/stripe/events", content=b"\xff", headers={"stripe-signature": right}),
        await owner.http.post(
            "/stripe/events", content=body, headers=[("stripe-signature", right), ("stripe-signature", right)]
        ),
    ]
    assert [answer.status_code for answer in answers] == [400] * len(answers)
    assert await state(owner) == ("free", 0)
    await tell(owner, body)
    assert await state(owner) == ("free", 10)


async def test_a_second_signature_of_a_changing_secret_is_enough(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    body = stripe.event("checkout.session.completed", stripe.pay(await begun(owner, stripe)))
    old, new = (signed(body, secret=secret)["stripe-signature"] for secret in ("whsec_old", WEBHOOK_SECRET))
    both = f"{old},{new.partition(',')[2]}"
    answer = await owner.http.post("/stripe/events", content=body, headers={"stripe-signature": both})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b'{"id": "evt_x"}', 400),
        (b'{"id": "evt_x", "type": "ping", "data": {"object": {}}}', 200),
        (b'{"id": "evt_x", "type": "invoice.paid", "data": {"object": {"customer": 7}}}', 422),
        (b'{"id": "evt_x", "type": "invoice.paid", "data": {"object": {"customer": "cus_nobody"}}}', 200),
        (b'{"id": "evt_x", "type": "invoice.paid", "data": {"object": {"customer": null}}}', 200),
    ],
)
async def test_signed_events_that_are_not_ours_are_taken_and_nonsense_is_not(
    owner: ConsoleClient, body: bytes, status: int
) -> None:
    assert (await send(owner, body)).status_code == status


async def test_events_are_posted_and_bounded(owner: ConsoleClient) -> None:
    answer = await owner.http.get("/stripe/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert (await send(owner, b" " * (1024 * 1024 + 1))).status_code == 413


async def test_a_purchase_of_something_else_and_a_pack_without_credits_add_nothing(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session = stripe.pay(await begun(owner, stripe))
    foreign = {**session, "metadata": {"order": "17"}}
    await tell(owner, stripe.event("checkout.session.completed", foreign))
    for credits in ("", "-5", "1e3", "0", "1000001", "٣"):
        broken = {**session, "metadata": {"pack": "small", "credits": credits}}
        answer = await send(owner, stripe.event("checkout.session.completed", broken))
        assert answer.status_code == 422, credits
    assert await state(owner) == ("free", 0)
    assert (
        await owner.deployment.db.fetchval(
            "SELECT count(*) FROM stripe_events WHERE account_id = $1", owner.account_id
        )
        == 1
    )


async def test_a_subscription_of_another_customer_is_not_believed(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    mine = await customer_of(owner)
    other = stripe.subscribe("cus_other", "price_pro")
    answer = await send(owner, stripe.event("customer.subscription.updated", {**other, "customer": mine}))
    assert answer.status_code == 422
    assert (await state(owner))[0] == "free"


async def test_with_the_payment_service_away_an_event_is_put_off_whole(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = stripe.subscribe(await customer_of(owner), "price_pro")
    body = stripe.event("invoice.paid", stripe.invoice(subscription))
    stripe.down = True
    try:
        assert (await send(owner, body)).status_code == 503
    finally:
        stripe.down = False
    assert await state(owner) == ("free", 0)
    await tell(owner, body)
    assert await state(owner) == ("pro", 29)


async def test_a_crash_between_the_credits_and_the_commit_leaves_nothing_and_the_repetition_all(
    owner: ConsoleClient, stripe: StripeEmulator, console: Deployment
) -> None:
    """Whoever carries the event out loses its connection after all has been written and before it is committed."""
    db = console.db
    body = stripe.event("checkout.session.completed", stripe.pay(await begun(owner, stripe)))
    session_ends = """
        CREATE FUNCTION end_the_session() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER crash AFTER INSERT ON stripe_events DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION end_the_session()
    """
    admin = await asyncpg.connect(db.dsn)
    try:
        await admin.execute(session_ends)
        assert (await send(owner, body)).status_code == 503
    finally:
        await admin.execute("DROP TRIGGER IF EXISTS crash ON stripe_events; DROP FUNCTION end_the_session")
        await admin.close()
    assert await state(owner) == ("free", 0)
    assert await _events(db, body) == 0
    await tell(owner, body)
    await tell(owner, body)
    assert await state(owner) == ("free", 10)
    assert await _events(db, body) == 1


async def _events(db: Database, body: bytes) -> int:
    found: int = await db.fetchval("SELECT count(*) FROM stripe_events WHERE id = $1", json.loads(body)["id"])
    return found


async def test_old_events_are_forgotten_and_still_add_nothing_twice(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    body = stripe.event("checkout.session.completed", stripe.pay(await begun(owner, stripe)))
    await tell(owner, body)
    db = owner.deployment.db
    await db.execute(
        "UPDATE stripe_events SET received_at = now() - interval '91 days' WHERE account_id = $1",
        owner.account_id,
    )
    assert await billing_store.delete_old_events(db) == 1
    await tell(owner, body)
    assert await state(owner) == ("free", 10)
