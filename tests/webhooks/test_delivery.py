"""Deliveries over real HTTP: what arrives, what is recorded, what is tried again."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import self_signed
from tests.resolving import ScriptedResolver
from tests.support import eventually
from tests.webhooks.conftest import ORIGIN, Post
from tests.webhooks.receiver import Behavior

from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.webhooks import store
from babysea_server.webhooks.retention import WebhookRetention
from babysea_server.webhooks.schedule import STEPS_S
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.sender import Sender
from babysea_server.webhooks.signing import sign
from babysea_server.webhooks.types import Answer, SendFailure, Sent


async def _notices(post: Post) -> list[Any]:
    return await post.db.fetch("SELECT * FROM notices")


async def test_a_delivery_arrives_once_with_the_headers_and_body_of_the_contract(post: Post) -> None:
    hook = await post.hook()
    await post.happen()
    post.deliverer()
    [got] = await post.receiver.has("/hook", 1)
    [delivery] = await post.settled(hook)
    body = json.loads(got.body)
    assert list(body) == ["webhook_event", "webhook_timestamp", "webhook_delivery_id", "webhook_data"]
    assert body["webhook_delivery_id"] == got.id == got.headers["webhook-id"] == str(delivery["id"])
    assert body["webhook_timestamp"] == got.headers["X-BabySea-Timestamp"]
    assert body["webhook_event"] == got.event == "credits.low_balance"
    assert got.headers["Content-Type"] == "application/json"
    assert delivery["state"] == "delivered"
    assert delivery["ended_at"] is not None
    [attempt] = await post.attempts(delivery["id"])
    assert (attempt["status"], attempt["error"], attempt["response"]) == (200, None, "ok")
    assert len(post.receiver.received) == 1


async def test_an_attempt_is_signed_with_the_endpoints_own_secret(post: Post) -> None:
    hook = await post.hook()
    await post.happen()
    post.deliverer()
    [got] = await post.receiver.has("/hook", 1)
    [delivery] = await post.deliveries()
    at = int(got.headers["webhook-timestamp"])
    expected = sign(hook.secret, delivery["id"], got.body, datetime.fromtimestamp(at, UTC))
    assert expected.items() <= got.headers.items()


async def test_every_attempt_has_the_same_id_and_the_same_bytes(post: Post) -> None:
    hook = await post.hook(events=["generation.completed"])
    post.receiver.path("/hook", statuses=[500, 503, 200])
    key = "outputs/2026/04/28/0192f5a0-0000-7000-8000-000000000001/1.png"
    await post.happen(event="generation.completed", generation_output_file=[key])
    post.deliverer()
    for tries in (1, 2):
        await post.settled(hook, attempts=tries)
        await post.make_due(hook)
    [delivery] = await post.settled(hook, attempts=3)
    got = post.receiver.at("/hook")
    assert len(got) == 3
    assert len({each.id for each in got}) == 1
    assert len({each.body for each in got}) == 1
    [link] = got[0].data["generation_output_file"]
    assert link.startswith(f"{ORIGIN}/files/{key}?expires=")
    expires = int(link.partition("expires=")[2].partition("&")[0])
    # Two times the schedule, 72 hours and the usual lifetime: whatever attempt succeeds, the file can be read.
    assert expires - delivery["created_at"].timestamp() >= 2 * sum(STEPS_S) + 72 * 3600 + 3600
    assert [(a["number"], a["status"], a["error"]) for a in await post.attempts(delivery["id"])] == [
        (1, 500, "http_5xx"),
        (2, 503, "http_5xx"),
        (3, 200, None),
    ]


async def test_failures_are_tried_again_by_the_table_and_then_given_up(post: Post) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", statuses=[500])
    await post.happen()
    post.deliverer()
    for number in range(1, len(STEPS_S) + 1):
        [delivery] = await post.settled(hook, attempts=number)
        made = delivery["attempts"]  # the first steps are so short that more may have been made meanwhile
        assert delivery["due_at"] - delivery["tried_at"] == timedelta(seconds=STEPS_S[made - 1])
        await post.make_due(hook)
    [delivery] = await post.settled(hook, attempts=len(STEPS_S) + 1)
    assert delivery["state"] == "failed"
    assert delivery["ended_at"] is not None
    assert len(post.receiver.at("/hook")) == 9


@pytest.mark.parametrize(
    ("asked", "seconds"), [("1", 60), ("60", 60), ("100", 100), ("3600", 120), ("soon", 60)]
)
async def test_retry_after_counts_up_to_twice_the_step(post: Post, asked: str, seconds: int) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", statuses=[429], headers={"Retry-After": asked})
    await post.happen()
    await post.tried_before(3)
    post.deliverer()
    [delivery] = await post.settled(hook, attempts=4)
    assert delivery["due_at"] - delivery["tried_at"] == timedelta(seconds=seconds)
    [attempt] = await post.attempts(delivery["id"])
    assert (attempt["status"], attempt["error"]) == (429, "http_4xx")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
async def test_redirects_are_failures_and_never_followed(post: Post, status: int) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", statuses=[status], headers={"Location": f"{post.receiver.origin}/elsewhere"})
    await post.happen()
    await post.tried_before(4)
    post.deliverer()
    [delivery] = await post.settled(hook, attempts=5)
    [attempt] = await post.attempts(delivery["id"])
    assert (attempt["status"], attempt["error"], delivery["state"]) == (status, "redirect", "pending")
    assert post.receiver.at("/elsewhere") == []


async def test_410_is_a_failure_like_any_other(post: Post) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", statuses=[410])
    await post.happen()
    await post.tried_before(4)
    post.deliverer()
    [delivery] = await post.settled(hook, attempts=5)
    assert delivery["state"] == "pending"
    assert (await post.endpoint(hook))["state"] == "enabled"


async def test_an_endpoint_has_at_most_its_places_in_flight_over_all_deliverers(post: Post) -> None:
    hook = await post.hook()
    behavior = post.receiver.path("/hook", held=True)
    await post.happen(40)
    for _ in range(3):
        post.deliverer(per_endpoint=4)
    await post.receiver.has("/hook", 4)
    behavior.release()
    await post.receiver.has("/hook", 40)
    await post.settled(hook)
    assert post.receiver.most_at_once["/hook"] == 4
    ids = [each.id for each in post.receiver.received]
    assert len(ids) == len(set(ids)) == 40


async def test_slow_and_dead_receivers_delay_nobody_else(post: Post) -> None:
    slow = await post.hook("/slow")
    await post.hook("/dead", url="http://127.0.0.1:9/dead")
    behavior = post.receiver.path("/slow", held=True)
    fast = await post.hook("/fast")
    await post.happen(100)
    post.deliverer(per_endpoint=4)
    await post.receiver.has("/fast", 100)  # all of it while the slow one has answered nothing
    await post.settled(fast)
    assert len(post.receiver.at("/slow")) == 4
    behavior.release()
    await post.receiver.has("/slow", 100)
    assert {row["state"] for row in await post.settled(slow)} == {"delivered"}


async def test_many_endpoints_are_served_by_turns_when_places_are_short(post: Post) -> None:
    hooks = [await post.hook(f"/{number}") for number in range(12)]
    held = [post.receiver.path(hook.path, held=True) for hook in hooks]
    await post.happen(3)
    deliverer = post.deliverer(concurrency=3, per_endpoint=1)
    for count in range(1, 13):
        # Whoever waits longest is answered; the place it leaves goes to one that had none yet.
        await eventually(partial(_heard_of, post, min(12, 2 + count)))
        first = await eventually(partial(_first_held, post, held))
        first.release()
    assert deliverer.sending <= 3
    for hook in hooks:
        await post.receiver.has(hook.path, 3)


async def _heard_of(post: Post, paths: int) -> bool:
    return len({each.path for each in post.receiver.received}) >= paths


async def _first_held(post: Post, held: list[Behavior]) -> Behavior | None:
    for each in post.receiver.received:
        behavior = held[int(each.path[1:])]
        if behavior.held:
            return behavior
    return None


async def test_an_endpoint_is_disabled_after_fifteen_deliveries_in_a_row_and_its_owner_told(
    post: Post,
) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", statuses=[500])
    await post.happen(14)
    await post.tried_before(4)
    post.deliverer()
    await post.settled(hook, attempts=5)
    assert ((await post.endpoint(hook))["state"], await _notices(post)) == ("enabled", [])
    await post.happen(2)
    await post.settled(hook)  # a first attempt alone counts for nothing
    assert (await post.endpoint(hook))["failed_in_a_row"] == 14
    await post.tried_before(4, only_attempts=1)
    await post.make_due(hook)

    async def failing() -> bool:
        return bool((await post.endpoint(hook))["state"] == "failing")

    await eventually(failing)
    [notice] = await _notices(post)
    assert notice["account_id"] == post.account_id
    assert notice["kind"] == "webhook.disabled"
    assert notice["data"] == {"endpoint_id": str(hook.id), "url": f"{post.receiver.origin}/hook"}


async def test_a_success_begins_the_count_anew(post: Post) -> None:
    hook = await post.hook()
    await post.db.execute("UPDATE webhook_endpoints SET failed_in_a_row = 14")
    await post.happen()
    post.deliverer()
    await post.settled(hook)
    assert (await post.endpoint(hook))["failed_in_a_row"] == 0


async def test_of_a_batch_only_the_failures_after_the_last_success_count(post: Post) -> None:
    hook = await post.hook()
    await post.db.execute("UPDATE webhook_endpoints SET failed_in_a_row = 13")
    await post.happen(4)
    await post.tried_before(4)
    worker = await post.bare_worker()
    claimed = await post.claim(worker, per_endpoint=16)
    failed, ok = Answer(SendFailure.TIMEOUT, 1), Answer(None, 1, 200)
    sent = [
        Sent(delivery, answer, None if answer.ok else 600.0)
        for delivery, answer in zip(claimed, [failed, ok, failed, failed], strict=True)
    ]
    assert [each.disabled for each in await store.record(post.db, worker, sent)] == [None] * 4
    endpoint = await post.endpoint(hook)
    assert (endpoint["failed_in_a_row"], endpoint["state"]) == (2, "enabled")


async def test_events_of_endpoints_that_are_not_enabled_wait_and_expire_after_72_hours(post: Post) -> None:
    disabled, failing = await post.hook("/a", state="disabled"), await post.hook("/b", state="failing")
    enabled = await post.hook("/c")
    await post.happen(2)
    post.deliverer()
    await post.receiver.has("/c", 2)
    await post.settled(enabled)
    retention = WebhookRetention(post.db, keep_days=30)
    for hours, states in ((71, {"pending"}), (73, {"expired"})):
        await post.db.execute(
            "UPDATE webhook_deliveries SET created_at = now() - make_interval(hours => $1)", hours
        )
        await retention.run()
        for hook in (disabled, failing):
            assert {row["state"] for row in await post.deliveries(hook)} == states
    assert {row["state"] for row in await post.deliveries(enabled)} == {"delivered"}
    assert {each.path for each in post.receiver.received} == {"/c"}


async def test_what_was_queued_is_not_sent_by_itself_when_the_endpoint_is_enabled(post: Post) -> None:
    hook = await post.hook(state="disabled")
    await post.happen(2)
    await post.db.execute("UPDATE webhook_endpoints SET state = 'enabled'")
    await post.happen(1)
    post.deliverer()
    [got] = await post.receiver.has("/hook", 1)
    states = {str(row["id"]): row["state"] for row in await post.deliveries(hook)}
    assert len(states) == 3
    assert len(post.receiver.received) == 1
    assert [id for id in states if id != got.id] == list(states)[:2]


async def test_retries_of_an_endpoint_that_was_disabled_expire_72_hours_after_that(post: Post) -> None:
    hook = await post.hook()
    await post.happen()
    await post.tried_before(6)
    await post.db.execute("UPDATE webhook_deliveries SET created_at = now() - interval '100 hours'")
    retention = WebhookRetention(post.db, keep_days=30)
    for hours, state in ((71, "pending"), (73, "expired")):
        await post.db.execute(
            "UPDATE webhook_endpoints SET state = 'failing', state_changed_at = now() - make_interval(hours => $1)",
            hours,
        )
        await retention.run()
        assert [row["state"] for row in await post.deliveries(hook)] == [state]


async def test_old_messages_are_deleted_with_their_deliveries_unless_one_is_still_to_be_sent(
    post: Post,
) -> None:
    hook = await post.hook()
    await post.happen(3)
    post.deliverer()
    await post.receiver.has("/hook", 3)
    rows = await post.settled(hook)
    await post.db.execute(
        "UPDATE webhook_messages SET created_at = now() - interval '31 days' WHERE id <> $1",
        rows[2]["message_id"],
    )
    await post.db.execute(
        """INSERT INTO webhook_deliveries (id, message_id, endpoint_id, account_id, replay_of, due_at)
           SELECT $2, message_id, endpoint_id, account_id, id, now() + interval '1 hour'
           FROM webhook_deliveries WHERE id = $1""",
        rows[1]["id"],
        uuid7(),
    )
    await WebhookRetention(post.db, keep_days=30).run()
    left = [row["message_id"] for row in await post.deliveries(hook)]
    assert left == [rows[1]["message_id"], rows[2]["message_id"], rows[1]["message_id"]]
    assert len(await post.db.fetch("SELECT FROM webhook_messages")) == 2
    assert len(await post.db.fetch("SELECT FROM webhook_attempts")) == 2


async def test_a_large_answer_is_cut_and_kept_as_text(post: Post) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", body=b"\x00\xff" + b"x" * 1_000_000)
    await post.happen()
    post.deliverer()
    [delivery] = await post.settled(hook)
    [attempt] = await post.attempts(delivery["id"])
    assert delivery["state"] == "delivered"
    assert attempt["response"] == "\ufffd\ufffd" + "x" * 2046


async def test_a_body_that_never_ends_does_not_undo_a_success(post: Post) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", body=b"wait", endless=True)
    await post.happen()
    post.deliverer()
    [delivery] = await post.settled(hook)
    [attempt] = await post.attempts(delivery["id"])
    assert (delivery["state"], attempt["status"], attempt["response"]) == ("delivered", 200, "wait")


async def test_no_answer_in_time_is_a_failure(post: Post) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", held=True)
    await post.happen()
    await post.tried_before(4)
    post.deliverer(sender=Sender(SystemClock(), allow_private=True, timeout_s=0.1))
    [delivery] = await post.settled(hook, attempts=5)
    [attempt] = await post.attempts(delivery["id"])
    assert (attempt["status"], attempt["error"]) == (None, "timeout")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://receiver.example/hook", "forbidden_url"),
        ("https://receiver.example:8443/hook", "forbidden_url"),
        ("https://user:word@receiver.example/hook", "forbidden_url"),
        ("https://inside.example/hook", "forbidden_address"),
        ("https://both.example/hook", "forbidden_address"),
        ("https://127.0.0.1/hook", "forbidden_address"),
        ("https://[::ffff:169.254.169.254]/hook", "forbidden_address"),
        ("https://nowhere.example/hook", "dns"),
    ],
)
async def test_hostile_addresses_are_refused_when_a_delivery_is_sent(
    post: Post, url: str, error: str
) -> None:
    hook = await post.hook(url=url)
    resolver = ScriptedResolver({"inside.example": [["127.0.0.1"]], "both.example": [["10.0.0.1", "::1"]]})
    await post.happen()
    await post.tried_before(4)
    post.deliverer(sender=Sender(SystemClock(), resolver=resolver))
    [delivery] = await post.settled(hook, attempts=5)
    [attempt] = await post.attempts(delivery["id"])
    assert (attempt["status"], attempt["error"], delivery["state"]) == (None, error, "pending")
    assert (await post.endpoint(hook))["failed_in_a_row"] == 1


async def test_a_name_that_turns_inwards_after_it_was_saved_is_refused(post: Post, tmp_path: Path) -> None:
    _, tls = self_signed(tmp_path)
    resolver = ScriptedResolver({"turns.example": [["127.0.0.1"]]})
    sender = Sender(SystemClock(), resolver=resolver, tls=tls)
    hook = await post.hook(url="https://turns.example/hook")
    await post.happen()
    await post.tried_before(4)
    post.deliverer(sender=sender)
    [delivery] = await post.settled(hook, attempts=5)
    [attempt] = await post.attempts(delivery["id"])
    assert attempt["error"] == "forbidden_address"
    assert resolver.asked == ["turns.example"]


async def test_a_secret_that_cannot_be_opened_is_a_failure_that_says_so(post: Post) -> None:
    hook = await post.hook()
    await post.happen()
    await post.tried_before(4)
    post.box = SecretBox(b"x" * 32)
    post.deliverer()
    [delivery] = await post.settled(hook, attempts=5)
    [attempt] = await post.attempts(delivery["id"])
    assert attempt["error"] == "unsigned"
    assert (await post.endpoint(hook))["failed_in_a_row"] == 0  # it is our fault and nobody else's
    assert post.receiver.received == []
