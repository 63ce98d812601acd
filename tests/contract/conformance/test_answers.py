"""Every operation's answer: its members as the contract writes them, nulls, omissions and nothing beside."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.contract.conformance import contract
from tests.contract.conformance.shapes import Shape, differences, moment, text
from tests.contract.conformance.target import Model, Target

#: Path to message of the envelope (where the contract gives one) and shape of `data`.
PLAIN: Mapping[str, tuple[str | None, Shape]] = {
    "/v1/status": ("API connected successfully", contract.STATUS),
    "/v1/usage": (None, contract.USAGE),
    "/v1/user/account": (None, contract.ACCOUNT),
    "/v1/user/billing": (None, contract.BILLING),
    "/v1/health/inference/providers": (None, contract.HEALTH_PROVIDERS),
    "/v1/health/inference/models": (None, contract.HEALTH_MODELS),
    "/v1/health/storage": (None, contract.HEALTH_STORAGE),
    "/v1/health/cache": (None, contract.HEALTH_CACHE),
    "/v1/library/providers": (None, contract.LIBRARY_PROVIDERS),
    "/v1/library/models": (None, contract.LIBRARY_MODELS),
}


@pytest.mark.parametrize("path", PLAIN)
async def test_an_operation_without_inputs_answers_as_written(target: Target, path: str) -> None:
    message, shape = PLAIN[path]
    response = await target.request("GET", path)
    assert response.status_code == 200, response.text
    envelope = response.json()
    assert differences(envelope["data"], shape) == []
    assert list(envelope) == ["status", "request_id", "message", "timestamp", "data"]
    assert message in (None, envelope["message"])


async def test_totals_count_what_is_listed(target: Target) -> None:
    for path, total, members in (
        ("/v1/library/models", "models_total", "models"),
        ("/v1/library/providers", "providers_total", "providers"),
        ("/v1/health/inference/models", "models_total", "models"),
        ("/v1/health/inference/providers", "providers_total", "providers"),
    ):
        data = await target.ask("GET", path)
        assert data[total] == len(data[members]) > 0, path


async def test_both_libraries_and_both_healths_speak_of_the_same(target: Target) -> None:
    models = (await target.ask("GET", "/v1/library/models"))["models"]
    providers = {
        item["provider_id"] for item in (await target.ask("GET", "/v1/library/providers"))["providers"]
    }
    health = (await target.ask("GET", "/v1/health/inference/models"))["models"]
    watched = {
        item["provider"] for item in (await target.ask("GET", "/v1/health/inference/providers"))["providers"]
    }
    assert {item["model_identifier"] for item in health} == {item["model_identifier"] for item in models}
    assert watched == providers
    for item in models:
        assert set(item["model_supported_provider"]) <= providers


async def test_usage_covers_the_days_it_is_asked_for(target: Target) -> None:
    assert (await target.ask("GET", "/v1/usage"))["usage_period_days"] == 30
    for days in (1, 90):
        assert (await target.ask("GET", f"/v1/usage?days={days}"))["usage_period_days"] == days


async def test_one_account_is_told_by_all_operations(target: Target) -> None:
    paths = ("/v1/status", "/v1/usage", "/v1/user/account", "/v1/user/billing")
    assert len({(await target.ask("GET", path))["account_id"] for path in paths}) == 1


async def test_the_status_tells_the_key_that_asks(target: Target) -> None:
    assert (await target.ask("GET", "/v1/status"))["apikey_prefix"] == target.key[:9]


async def test_an_estimate_of_an_image_has_no_length(target: Target, image: Model) -> None:
    data = await target.ask("GET", f"/v1/estimate/{image.identifier}?count=3")
    assert differences(data, contract.ESTIMATE_IMAGE) == []
    assert data["assets_count"] == 3
    assert data["cost_total_consumed"] == pytest.approx(3 * data["cost_per_generation"])


async def test_an_estimate_of_a_video_takes_its_smallest_length(target: Target, video: Model) -> None:
    models = (await target.ask("GET", "/v1/library/models"))["models"]
    (model,) = [item for item in models if item["model_identifier"] == video.identifier]
    data = await target.ask("GET", f"/v1/estimate/{video.identifier}")
    assert differences(data, contract.ESTIMATE_VIDEO) == []
    assert data["assets_count"] == 1
    assert data["duration_seconds"] == min(model["schema"]["generation_duration"])
    assert data["cost_per_generation"] == pytest.approx(data["cost_per_second"] * data["duration_seconds"])


@pytest.mark.parametrize(("asked", "counted"), [("-5", 1), ("0", 1), ("1", 1), ("100", 100), ("101", 100)])
async def test_the_count_of_an_estimate_is_clamped(
    target: Target, image: Model, asked: str, counted: int
) -> None:
    data = await target.ask("GET", f"/v1/estimate/{image.identifier}?count={asked}")
    assert data["assets_count"] == counted


@pytest.mark.parametrize("query", ["duration=9999", "duration=-1", "resolution=9p"])
async def test_an_impossible_length_or_resolution_is_invalid_input(
    target: Target, video: Model, query: str
) -> None:
    response = await target.request("GET", f"/v1/estimate/{video.identifier}?{query}")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "BSE2001")


async def test_a_model_identifier_is_written_with_a_plain_slash(target: Target, image: Model) -> None:
    data = await target.ask("GET", f"/v1/estimate/{image.identifier}")
    assert data["model_identifier"] == image.identifier


async def test_the_list_tells_its_page_beside_the_data(target: Target) -> None:
    envelope = (await target.request("GET", "/v1/content/list")).json()
    assert list(envelope) == [
        *("status", "request_id", "message", "timestamp", "data"),
        *("total", "limit", "offset"),
    ]
    assert (envelope["limit"], envelope["offset"]) == (50, 0)
    assert list(envelope["data"]) == ["generations"]


async def test_the_envelope_of_a_success(target: Target) -> None:
    response = await target.request("GET", "/v1/status")
    envelope = response.json()
    assert envelope["status"] == "success"
    assert envelope["request_id"].startswith("req_")
    assert envelope["request_id"] == response.headers["x-request-id"]
    assert text(envelope["message"])
    assert moment(envelope["timestamp"])


async def test_the_envelope_of_an_error(target: Target) -> None:
    response = await target.request("GET", f"/v1/content/{contract.MISSING}")
    envelope: dict[str, Any] = response.json()
    assert list(envelope) == ["status", "request_id", "error"]
    assert envelope["status"] == "error"
    assert envelope["request_id"] == response.headers["x-request-id"]
    error = envelope["error"]
    assert error.keys() - {"details"} == {"code", "type", "message", "retryable"}
    assert (error["type"], response.status_code, error["retryable"]) == contract.ERRORS[error["code"]]


async def test_no_two_requests_have_the_same_id(target: Target) -> None:
    ids = {(await target.request("GET", "/v1/status")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
