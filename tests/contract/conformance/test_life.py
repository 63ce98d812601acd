"""The life of a generation: accepted, made, read, listed, failed, canceled, deleted."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from tests.contract.conformance import contract
from tests.contract.conformance.shapes import Shape, anything, differences, link, parsed
from tests.contract.conformance.target import Issuer, Model, Target, code

#: What a file's first bytes are.
SIGNATURES = {
    "image": (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"<svg", b"GIF8"),
    "video": (b"ftyp", b"\x1aE\xdf"),
}
SLOW = "[sandbox:slow:60] a test"
CANCEL = "/v1/content/generation/cancel/{}"


def members(
    target: Target, model: Model, data: dict[str, Any], inputs: Mapping[str, Any], *more: Mapping[str, Shape]
) -> list[str]:
    """Where a generation is not exactly: its own members, the inputs echoed as sent, and those of its kind.

    Inputs that were not sent come back with the defaults that were used, if they have one.
    """
    shape: dict[str, Shape] = {f"{name}?": anything for name in target.published.inputs(model.identifier)}
    for part in (contract.GENERATION, contract.VIDEO if model.media == "video" else {}, *more, inputs):
        for name, member in part.items():
            shape.pop(f"{name}?", None)
            shape[name] = member
    return differences(data, shape)


async def download(target: Target, url: str) -> httpx.Response:
    """A file by its link; our own server's links name a host that only it knows."""
    if target.issuer is None:
        return await target.client.get(url)
    here = httpx.URL(target.base).copy_with(raw_path=httpx.URL(url).raw_path)
    return await target.client.get(here, headers={"Host": target.host})


@pytest.mark.parametrize("media", ["image", "video"])
async def test_a_generation_is_made_and_can_be_fetched(
    target: Target, image: Model, video: Model, media: str
) -> None:
    model = image if media == "image" else video
    response = await target.generate(model)
    accepted = response.json()["data"]
    assert differences(accepted, contract.ACCEPTED) == []
    assert accepted["model_identifier"] == model.identifier
    data = await target.finished(accepted["generation_id"])
    assert members(target, model, data, dict(model.body)) == []
    assert data["generation_status"] == "succeeded"
    assert data["generation_prediction_id"] == accepted["generation_prediction_id"]
    assert data["generation_provider_order"] == accepted["generation_provider_order"]
    assert data["generation_provider_used"] in data["generation_provider_order"]
    moments = [parsed(data[f"generation_{name}_at"]) for name in ("created", "started", "completed")]
    assert moments == sorted(moments)
    assert data["generation_metrics_total_time"] >= 0
    (url,) = data["generation_output_file"]
    assert link(url)
    file = await download(target, url)
    assert file.status_code == 200
    assert file.headers["content-type"].startswith(f"{media}/")
    assert any(signature in file.content[:64] for signature in SIGNATURES[media])


async def test_a_success_costs_what_was_estimated(
    target: Target, issuer: Issuer, image: Model, video: Model
) -> None:
    caller = target.seen_with(await issuer.issue(credits="5"))
    left = 5.0
    for model, query in ((image, ""), (video, f"?duration={video.body['generation_duration']}")):
        estimate = await caller.ask("GET", f"/v1/estimate/{model.identifier}{query}")
        data = await caller.finished(await caller.started(model))
        assert data["generation_status"] == "succeeded"
        left = round(left - estimate["cost_per_generation"], 6)
        assert (await caller.ask("GET", "/v1/user/billing"))["billing_credit_balance"] == left


async def test_nothing_is_said_before_there_is_something_to_say(
    target: Target, issuer: Issuer, image: Model
) -> None:
    generation_id = await target.started(image, prompt=SLOW)
    data = await target.ask("GET", f"/v1/content/{generation_id}")
    assert members(target, image, data, {**image.body, "generation_prompt": SLOW}) == []
    assert data["generation_status"] in ("pending", "processing")
    for name in (
        "provider_used",
        "output_file",
        "completed_at",
        "metrics_total_time",
        "metrics_predict_time",
    ):
        assert data[f"generation_{name}"] is None
    await target.ask("POST", CANCEL.format(generation_id))


async def test_every_input_comes_back_as_it_was_sent(target: Target, issuer: Issuer) -> None:
    """With the sandbox's own model, whose inputs are known here."""
    sent = {
        "generation_prompt": "Ein Leuchtturm 灯台",
        "generation_ratio": "16:9",
        "generation_output_format": "webp",
        "generation_output_number": 2,
        "generation_input_file": ["https://example.com/source.png"],
        "generation_seed": 7,
    }
    model = Model("sandbox/image", "image", sent)
    data = await target.finished(await target.started(model))
    assert members(target, model, data, sent) == []
    assert len(data["generation_output_file"]) == 2


async def test_a_failure_tells_its_code_and_costs_nothing(
    target: Target, issuer: Issuer, image: Model
) -> None:
    caller = target.seen_with(await issuer.issue(credits="5"))
    data = await caller.finished(await caller.started(image, prompt="[sandbox:refuse_policy] a test"))
    assert members(target, image, data, {}, contract.FAILURE) == []
    assert (data["generation_status"], data["generation_error_code"]) == ("failed", "BSE2006")
    assert data["generation_output_file"] is None
    assert (await caller.ask("GET", "/v1/user/billing"))["billing_credit_balance"] == 5


async def test_a_cancel_refunds_whole_and_ends_it(target: Target, issuer: Issuer, image: Model) -> None:
    caller = target.seen_with(await issuer.issue(credits="5"))
    cost = (await caller.ask("GET", f"/v1/estimate/{image.identifier}"))["cost_per_generation"]
    generation_id = await caller.started(image, prompt=SLOW)
    data = await caller.ask("POST", CANCEL.format(generation_id))
    assert differences(data, contract.CANCEL) == []
    assert (data["generation_id"], data["credits_refunded"]) == (generation_id, cost)
    seen = await caller.ask("GET", f"/v1/content/{generation_id}")
    assert members(target, image, seen, {}) == []
    assert seen["generation_status"] == "canceled"
    assert (await caller.ask("GET", "/v1/user/billing"))["billing_credit_balance"] == 5
    for _ in range(2):
        again = await caller.request("POST", CANCEL.format(generation_id))
        assert (again.status_code, code(again)) == (409, "BSE3002")


async def test_what_is_final_cannot_be_canceled(target: Target, image: Model) -> None:
    generation_id = await target.started(image)
    await target.finished(generation_id)
    response = await target.request("POST", CANCEL.format(generation_id))
    assert (response.status_code, code(response)) == (409, "BSE3002")


async def test_what_is_in_flight_cannot_be_deleted(target: Target, issuer: Issuer, image: Model) -> None:
    generation_id = await target.started(image, prompt=SLOW)
    response = await target.request("DELETE", f"/v1/content/{generation_id}")
    assert (response.status_code, code(response)) == (409, "BSE3003")
    await target.ask("POST", CANCEL.format(generation_id))
    deleted = await target.ask("DELETE", f"/v1/content/{generation_id}")
    assert deleted == {"generation_id": generation_id, "files_deleted": 0}


async def test_a_deleted_generation_is_gone_with_its_files(target: Target, image: Model) -> None:
    generation_id = await target.started(image)
    (url,) = (await target.finished(generation_id))["generation_output_file"]
    data = await target.ask("DELETE", f"/v1/content/{generation_id}")
    assert differences(data, contract.DELETE) == []
    assert (data["generation_id"], data["files_deleted"]) == (generation_id, 1)
    for method, path in (
        ("GET", f"/v1/content/{generation_id}"),
        ("DELETE", f"/v1/content/{generation_id}"),
        ("POST", CANCEL.format(generation_id)),
    ):
        response = await target.request(method, path)
        assert (response.status_code, code(response)) == (404, "BSE3001")
    listed = (await target.ask("GET", "/v1/content/list?limit=100"))["generations"]
    assert generation_id not in {item["generation_id"] for item in listed}
    assert (await download(target, url)).status_code in (403, 404)


async def test_an_id_is_read_in_either_case(target: Target, image: Model) -> None:
    generation_id = await target.started(image)
    data = await target.ask("GET", f"/v1/content/{generation_id.upper()}")
    assert data["generation_id"] == generation_id
