"""What a collector gets: the whole of a generation in one trace, and the request that made it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from tests.conftest import MakeDeployment
from tests.support import Customer, Deployment, eventually, make_customer
from tests.telemetry.collector import Collector, Seen, collecting
from tests.webhooks.receiver import Receiver, receiver

from babysea_server.app.shared import build_shared
from babysea_server.telemetry.tracing import Sampler
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.secrets import SecretBox

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROMPT = "a harbour that nobody else may know of"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector that is sent to without delay, because OpenTelemetry's own variable says so."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with collecting() as collector:
        yield collector


@pytest.fixture
async def traced(make_deployment: MakeDeployment, collector: Collector) -> Deployment:
    return await make_deployment(
        tracing_endpoint=f"{collector.endpoint}/v1/traces", webhooks_allow_private=True
    )


async def _hook(customer: Customer, one: Receiver) -> UUID:
    box = SecretBox(build_shared(customer.deployment.settings).master_key)
    made = await endpoints.create(
        customer.deployment.db, box, customer.account_id, url=f"{one.origin}/hook?s3cret", allow_private=True
    )
    return made.endpoint.id


def _tree(trace: list[Seen]) -> dict[str, Any]:
    """Names beneath names; names that come several times are told apart by their order."""

    def beneath(parent_id: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for span in trace:
            if span.parent_id == parent_id:
                name = span.name if span.name not in found else f"{span.name} again"
                found[name] = beneath(span.span_id)
        return found

    return beneath("")


def _one(trace: list[Seen], name: str) -> Seen:
    [span] = [span for span in trace if span.name == name]
    return span


async def _failing_over(customer: Customer, **headers: str) -> Any:
    return await customer.request(
        "POST",
        "/v1/generate/image/bfl/flux-schnell",
        json={
            "generation_prompt": f"{PROMPT} [sandbox:replicate=fail]",
            "generation_provider_order": "replicate, fal",
        },
        headers=headers,
    )


async def test_a_generation_with_failover_and_webhooks_is_one_tree(
    traced: Deployment, collector: Collector
) -> None:
    customer = await make_customer(traced)
    async with receiver() as one:
        endpoint_id = await _hook(customer, one)
        response = await _failing_over(customer, traceparent=CALLER)
        data = response.json()["data"]
        trace = await collector.has(
            data["generation_id"],
            "admission",
            "generation bfl/flux-schnell",
            "webhook generation.started",
            "webhook generation.completed",
        )
    steps: dict[str, Any] = {"submit": {}, "wait": {}}
    assert _tree(trace) == {
        "generation bfl/flux-schnell": {
            "admission": {},
            "queue": {},
            "attempt replicate": steps,
            "attempt fal": {**steps, "fetch": {}, "store": {}},
            "settle": {},
            "webhook generation.started": {},
            "webhook generation.completed": {},
        }
    }
    root = _one(trace, "generation bfl/flux-schnell")
    assert root.span_id == data["generation_id"].replace("-", "")[16:]
    assert root.attributes == {
        "babysea.region": "us",
        "babysea.generation.id": data["generation_id"],
        "babysea.generation.status": "succeeded",
        "babysea.account.id": str(customer.account_id),
        "gen_ai.request.model": "bfl/flux-schnell",
        "gen_ai.output.type": "image",
    }
    assert not root.failed
    assert min(span.start_ns for span in trace) == root.start_ns, "nothing of it was before it"
    before_its_end = [span for span in trace if not span.name.startswith("webhook")]
    assert max(span.end_ns for span in before_its_end) == root.end_ns
    assert all(span.start_ns <= span.end_ns for span in trace)

    refused, used = _one(trace, "attempt replicate"), _one(trace, "attempt fal")
    assert refused.attributes["babysea.attempt.id"] == data["generation_prediction_id"]
    assert (refused.failed, refused.attributes["error.type"]) == (True, "failed")
    assert (used.failed, used.attributes["babysea.attempt.outcome"]) == (False, "succeeded")
    for order, attempt in enumerate((refused, used), start=1):
        row = await traced.db.fetchrow(
            "SELECT * FROM attempts WHERE id = $1", UUID(attempt.attributes["babysea.attempt.id"])
        )
        assert attempt.attributes["gen_ai.response.id"] == row["upstream_id"]
        assert attempt.attributes["babysea.attempt.order"] == order == row["attempt_order"]
        assert attempt.attributes["gen_ai.provider.name"] == row["provider"]
    waits = [span for span in trace if span.name == "wait"]
    assert [(span.failed, span.attributes["babysea.result"]) for span in waits] == [
        (True, "refused"),
        (False, "finished"),
    ]

    admission = _one(trace, "admission")
    assert admission.attributes["babysea.admission.result"] == "accepted"
    assert admission.attributes["babysea.admission.batch_size"] == 1
    assert 0 <= admission.attributes["babysea.admission.queued_ms"] * 1e6 <= admission.end_ns - root.start_ns
    delivered = _one(trace, "webhook generation.completed")
    assert delivered.kind == "client"
    assert delivered.attributes["babysea.webhook.endpoint.id"] == str(endpoint_id)
    assert delivered.attributes["http.response.status_code"] == 200
    assert delivered.attributes["babysea.webhook.attempt"] == 1

    # The request is in its caller's trace, and each leads to the other.
    [request] = await collector.has(CALLER[3:35], "POST /v1/generate/{media}/{model_identifier}")
    assert (request.kind, request.parent_id) == ("server", CALLER[36:52])
    assert request.links == [(root.trace_id, root.span_id)]
    assert admission.links == [(request.trace_id, request.span_id)]
    assert request.attributes["babysea.request.id"] == response.json()["request_id"]
    assert request.attributes["http.response.status_code"] == 200

    services = {span.name: span.resource["service.name"] for span in [*trace, request]}
    assert services["admission"] == services[request.name] == "babysea-api"
    assert services["settle"] == services["webhook generation.completed"] == "babysea-worker"
    assert root.resource["deployment.environment.name"] == "test"


async def test_nothing_that_is_nobodys_business_is_in_a_trace(
    traced: Deployment, collector: Collector
) -> None:
    customer = await make_customer(traced)
    async with receiver() as one:
        await _hook(customer, one)
        generation_id = (await _failing_over(customer)).json()["data"]["generation_id"]
        await collector.has(generation_id, "webhook generation.completed", "generation bfl/flux-schnell")
        await customer.request("GET", f"/v1/content/{generation_id}?s3cret={PROMPT}")

        async def requests() -> bool:
            return sum(span.kind == "server" for span in collector.spans) >= 2

        await eventually(requests)
        hidden = [
            PROMPT,
            customer.key,
            customer.key[-12:],
            "s3cret",
            one.origin,
            "Customer",
            "sandbox:replicate",
        ]
    sent = b"".join(collector.bodies)
    assert len(sent) > 1000
    assert [text for text in hidden if text.encode() in sent] == []


async def test_requests_are_traced_whatever_comes_of_them(traced: Deployment, collector: Collector) -> None:
    customer = await make_customer(traced, credits="0")

    async def answered(*request: str, **options: Any) -> Seen:
        response = await customer.request(*request, **options)
        body = response.json()

        async def arrived() -> Seen | None:
            known = (span for span in collector.spans if span.kind == "server")
            return next(
                (span for span in known if span.attributes["babysea.request.id"] == body["request_id"]), None
            )

        return await eventually(arrived)

    read = await answered("GET", "/v1/status")
    assert (read.name, read.parent_id, read.failed) == ("GET /v1/status", "", False)
    assert read.attributes["babysea.operation"] == "status"
    assert {"babysea.phase.validate_ms", "babysea.phase.auth_ms"} <= read.attributes.keys()

    poor = await answered("POST", "/v1/generate/image/sandbox/image", json={"generation_prompt": "x"})
    assert poor.attributes["error.type"].startswith("BSE")
    assert not poor.failed, "the caller's mistake is no failure of the server"
    trace = await collector.has(poor.trace_id, "admission")
    assert _tree(trace) == {poor.name: {"admission": {}}}, "what was refused has no trace but its request's"
    assert _one(trace, "admission").attributes["babysea.admission.result"] == "insufficient_credits"

    nowhere = await answered("GET", "/v1/nowhere/at/all")
    assert nowhere.name == "GET"
    assert "http.route" not in nowhere.attributes

    malformed = await answered("GET", "/v1/status", headers={"traceparent": "00-nonsense"})
    assert malformed.parent_id == ""


async def test_a_caller_that_keeps_no_trace_gets_none_of_its_request(
    traced: Deployment, collector: Collector
) -> None:
    customer = await make_customer(traced)
    left_out = f"{CALLER[:-2]}00"
    response = await customer.generate()
    quiet = await customer.request(
        "POST",
        "/v1/generate/image/sandbox/image",
        json={"generation_prompt": "x"},
        headers={"traceparent": left_out},
    )
    for answer in (quiet, response):
        await collector.has(answer.json()["data"]["generation_id"], "generation sandbox/image", "admission")
    told = {span.attributes["babysea.request.id"] for span in collector.spans if span.kind == "server"}
    assert response.json()["request_id"] in told
    assert quiet.json()["request_id"] not in told
    assert not collector.trace(CALLER[3:35])


async def test_a_canceled_generation_has_a_root_and_its_attempt_an_end(
    traced: Deployment, collector: Collector
) -> None:
    customer = await make_customer(traced)
    response = await customer.generate(generation_prompt="[sandbox:slow:600]")
    generation_id = response.json()["data"]["generation_id"]

    async def bought() -> bool:
        sql = "SELECT upstream_id IS NOT NULL FROM attempts WHERE generation_id = $1"
        return bool(await traced.db.fetchval(sql, UUID(generation_id)))

    await eventually(bought)
    canceled = await customer.request("POST", f"/v1/content/generation/cancel/{generation_id}")
    assert canceled.status_code == 200
    trace = await collector.has(generation_id, "generation sandbox/image", "attempt sandbox", "wait")
    root, attempt = _one(trace, "generation sandbox/image"), _one(trace, "attempt sandbox")
    assert (root.attributes["babysea.generation.status"], root.failed) == ("canceled", False)
    assert attempt.attributes["babysea.attempt.outcome"] == "left"
    assert _tree(trace)[root.name]["attempt sandbox"] == {"submit": {}, "wait": {}}


async def test_a_failed_generation_and_its_webhook_that_nobody_takes_are_marked(
    traced: Deployment, collector: Collector
) -> None:
    customer = await make_customer(traced)
    async with receiver() as one:
        one.path("/hook", statuses=[503])
        await _hook(customer, one)
        response = await customer.generate(generation_prompt="[sandbox:fail]")
        generation_id = response.json()["data"]["generation_id"]
        trace = await collector.has(generation_id, "generation sandbox/image", "webhook generation.failed")
    root, told = _one(trace, "generation sandbox/image"), _one(trace, "webhook generation.failed")
    assert (root.failed, root.attributes["error.type"]) == (True, "BSE4001")
    assert (told.failed, told.attributes["error.type"]) == (True, "http_5xx")
    assert told.attributes["http.response.status_code"] == 503


async def test_a_generation_that_is_given_up_has_a_root(
    make_deployment: MakeDeployment, collector: Collector
) -> None:
    deployment = await make_deployment(tracing_endpoint=f"{collector.endpoint}/v1/traces")
    customer = await make_customer(deployment)
    generation_id = (await customer.generate(generation_prompt="[sandbox:slow:600]")).json()["data"][
        "generation_id"
    ]
    await collector.has(generation_id, "submit")
    await deployment.db.execute("UPDATE generations SET expires_at = now() - interval '1 second'")
    trace = await collector.has(generation_id, "generation sandbox/image", "admission", "queue")
    root = _one(trace, "generation sandbox/image")
    assert (root.failed, root.attributes["error.type"]) == (True, "BSE5004")


async def test_a_share_of_the_traces_is_kept_and_each_of_them_whole(
    make_deployment: MakeDeployment, collector: Collector
) -> None:
    deployment = await make_deployment(tracing_endpoint=f"{collector.endpoint}/v1/traces", tracing_sample=0.5)
    customer = await make_customer(deployment)
    answers = await asyncio.gather(*(customer.generate() for _ in range(24)))
    ids = [answer.json()["data"]["generation_id"] for answer in answers]
    for id in ids:
        await customer.finished(id)

    kept = {id for id in ids if Sampler(0.5)(UUID(id).int)}
    assert 0 < len(kept) < 24
    for id in kept:
        await collector.has(id, "admission", "queue", "attempt sandbox", "settle", "generation sandbox/image")

    def made() -> set[Any]:
        requests = [span for span in collector.spans if span.kind == "server"]
        return {span.attributes.get("babysea.generation.id") for span in requests} - {None}

    async def arrived() -> bool:
        return made() >= kept

    await eventually(arrived)
    assert made() == kept, "a request is kept with the generation that it made"
    assert [id for id in ids if collector.trace(id) and id not in kept] == []


async def test_every_line_of_a_generations_way_carries_its_ids(
    traced: Deployment, collector: Collector
) -> None:
    customer = await make_customer(traced)
    async with receiver() as one:
        one.path("/hook", statuses=[500])
        endpoint_id = await _hook(customer, one)
        with capture_logs(processors=[merge_contextvars]) as lines:
            response = await _failing_over(customer, traceparent=CALLER)
            generation_id = response.json()["data"]["generation_id"]
            trace = await collector.has(
                generation_id,
                "webhook generation.started",
                "webhook generation.completed",
                "generation bfl/flux-schnell",
            )
    assert all(line["region"] == "us" for line in lines)
    of_requests = [line for line in lines if "request_id" in line]
    of_it = [line for line in lines if line not in of_requests]
    assert [(line["event"], line["trace_id"]) for line in of_requests] == [
        ("request_served", CALLER[3:35]),
    ]
    assert {line["generation_id"] for line in lines} == {generation_id}
    assert {line["trace_id"] for line in of_it} == {generation_id.replace("-", "")}
    attempts = {
        span.attributes["babysea.attempt.id"]: span.attributes["gen_ai.provider.name"]
        for span in trace
        if span.name.startswith("attempt")
    }
    told = [line for line in of_it if "attempt_id" in line]
    assert [line["event"] for line in told] == ["attempt_ended", "attempt_ended", "generation_settled"]
    assert all(attempts[line["attempt_id"]] == line["provider"] for line in told)
    tries = [line for line in of_it if line not in told]
    assert {line["event"] for line in tries} == {"webhook_tried"}
    assert {line["endpoint_id"] for line in tries} == {str(endpoint_id)}
    assert {line["delivery_id"] for line in tries} == {
        span.attributes["babysea.webhook.delivery.id"] for span in trace if span.name.startswith("webhook")
    }
