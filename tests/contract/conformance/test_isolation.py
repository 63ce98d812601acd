"""Regions and accounts know nothing of one another: what is foreign looks like what does not exist."""

import json
from typing import Any

import httpx
import pytest
from tests.contract.conformance.contract import MISSING
from tests.contract.conformance.target import Issuer, Model, Target, code

BY_ID = (
    ("GET", "/v1/content/{id}"),
    ("DELETE", "/v1/content/{id}"),
    ("POST", "/v1/content/generation/cancel/{id}"),
)


def seen(response: httpx.Response, generation_id: str) -> tuple[int, Any, set[str]]:
    """All that a caller can tell an answer by, without the ids."""
    body = json.loads(response.text.replace(generation_id, "<id>"))
    body["request_id"] = "<request>"
    return response.status_code, body, set(response.headers)


@pytest.mark.parametrize(("method", "path"), BY_ID)
async def test_a_foreign_generation_answers_exactly_like_a_missing_one(
    target: Target, issuer: Issuer, image: Model, method: str, path: str
) -> None:
    owned = await target.started(image)
    stranger = target.seen_with(await issuer.issue())
    foreign = await stranger.request(method, path.format(id=owned))
    missing = await stranger.request(method, path.format(id=MISSING))
    assert (missing.status_code, code(missing)) == (404, "BSE3001")
    assert seen(foreign, owned) == seen(missing, MISSING)
    assert (await target.finished(owned))["generation_status"] == "succeeded"


async def test_a_list_holds_ones_own_only(target: Target, issuer: Issuer, image: Model) -> None:
    await target.started(image)
    stranger = target.seen_with(await issuer.issue())
    envelope = (await stranger.request("GET", "/v1/content/list")).json()
    assert (envelope["total"], envelope["data"]["generations"]) == (0, [])


async def test_a_key_of_another_region_is_unknown(target: Target, issuer: Issuer) -> None:
    there = target.seen_with(await issuer.issue(region="eu"), host=issuer.host("eu"))
    assert (await there.request("GET", "/v1/status")).status_code == 200
    for key, host in ((there.key, target.host), (target.key, there.host)):
        response = await target.seen_with(key, host=host).request("GET", "/v1/status")
        assert (response.status_code, code(response)) == (401, "BSE1002")


async def test_a_generation_is_of_one_region(target: Target, issuer: Issuer, image: Model) -> None:
    owned = await target.started(image)
    there = target.seen_with(await issuer.issue(region="eu"), host=issuer.host("eu"))
    response = await there.request("GET", f"/v1/content/{owned}")
    assert (response.status_code, code(response)) == (404, "BSE3001")


async def test_each_region_publishes_its_own_document(target: Target, issuer: Issuer) -> None:
    for region in ("us", "eu"):
        answer = await target.client.get(f"{target.base}/openapi.json", headers={"Host": issuer.host(region)})
        assert answer.json()["x-babysea-region"] == region
        assert f"//api.{region}." in answer.json()["servers"][0]["url"]


async def test_a_file_link_opens_without_a_key_and_only_as_it_was_signed(
    target: Target, image: Model
) -> None:
    generation = await target.finished(await target.started(image))
    (link, *_) = generation["generation_output_file"]
    url = httpx.URL(link)
    here = httpx.URL(target.base).copy_with(raw_path=url.raw_path) if target.issuer else url
    headers = {"Host": target.host} if target.issuer else {}
    assert (await target.client.get(here, headers=headers)).status_code == 200
    for spoilt in (str(here)[:-1] + ("A" if str(here)[-1] != "A" else "B"), str(here).partition("?")[0]):
        assert (await target.client.get(spoilt, headers=headers)).status_code in (403, 404)
