"""The whole of it in a running deployment: from a request to a webhook that the receiver kit believes."""

from typing import Any
from uuid import UUID

from tests.conftest import MakeDeployment
from tests.support import Customer, eventually, make_customer
from tests.webhooks.conftest import Post
from tests.webhooks.receiver import Receiver, receiver

from babysea.webhooks import GenerationCompleted, GenerationFailed, GenerationStarted, LowBalance, verify
from babysea_server.app.shared import build_shared
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.endpoints import EndpointSecret
from babysea_server.webhooks.secrets import SecretBox


async def _hook(customer: Customer, receiver: Receiver, account_id: UUID) -> EndpointSecret:
    box = SecretBox(build_shared(customer.deployment.settings).master_key)
    return await endpoints.create(
        customer.deployment.db, box, account_id, url=f"{receiver.origin}/hook", allow_private=True
    )


async def test_every_event_of_a_generation_reaches_its_owner_and_verifies(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(webhooks_allow_private=True)
    customer = await make_customer(deployment)
    async with receiver() as one:
        hook = await _hook(customer, one, customer.account_id)
        made = await customer.made(generation_prompt="a harbour")
        broken = await customer.made(generation_prompt="a harbour [sandbox:fail]")
        received = await one.has("/hook", 4)
        events = [verify(each.body, each.headers, hook.secret) for each in received]
        assert len({event.delivery_id for event in events}) == 4

        def told(kind: type[Any], generation: dict[str, Any]) -> Any:
            [data] = [
                event.data
                for event in events
                if isinstance(event.data, kind) and event.data.generation_id == generation["generation_id"]
            ]
            return data

        assert told(GenerationStarted, made).generation_provider_initialize == "sandbox"
        completed = told(GenerationCompleted, made)
        assert completed.generation_status == "succeeded"
        [link] = completed.generation_output_file
        path = link.partition("/files/")[2]
        picture = await deployment.client.get(f"/files/{path}")
        assert picture.status_code == 200, "the link works for whoever got the webhook"
        failed = told(GenerationFailed, broken)
        assert (failed.generation_error_code, failed.generation_status) == ("BSE4001", "failed")


async def test_a_balance_that_falls_below_its_threshold_is_told(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(webhooks_allow_private=True)
    customer = await make_customer(deployment, credits="0.5005")
    async with receiver() as one:
        hook = await _hook(customer, one, customer.account_id)
        await customer.made()

        async def warned() -> Any:
            events = [verify(each.body, each.headers, hook.secret) for each in one.at("/hook")]
            return next((event.data for event in events if isinstance(event.data, LowBalance)), None)

        warning = await eventually(warned)
        assert [crossed.threshold for crossed in warning.thresholds_crossed] == [0.5]
        assert warning.current_balance < 0.5


async def test_a_test_event_is_delivered_like_any_other(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(webhooks_allow_private=True)
    customer = await make_customer(deployment)
    async with receiver() as one:
        hook = await _hook(customer, one, customer.account_id)
        await replay.send_test(deployment.db, customer.account_id, hook.endpoint.id)
        [received] = await one.has("/hook", 1)
        assert verify(received.body, received.headers, hook.secret).event == "webhook.test"


async def test_our_own_faults_disable_nobody(post: Post) -> None:
    hook = await post.hook()
    await post.happen(16)
    await post.tried_before(4)
    post.box = SecretBox(b"x" * 32)  # a worker whose master key is out of date
    post.deliverer()
    await post.settled(hook, attempts=5)
    row = await post.endpoint(hook)
    assert (row["state"], row["failed_in_a_row"]) == ("enabled", 0)
