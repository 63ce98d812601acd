"""Estimate and the libraries, as the contract spells them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.routes import CatalogRoutes
from babysea_server.catalog.types import Traits
from babysea_server.catalog.wire import EstimateData, LibraryModelsData, LibraryProvidersData
from babysea_server.errors import ApiError
from babysea_server.kit.calls import Call, Plan, Principal
from babysea_server.kit.json import dumps

ACCOUNT = uuid4()


def routes(catalog: Catalog, balance_micro: int = 1_000_000) -> CatalogRoutes:
    async def balance(account_id: UUID) -> int:
        assert account_id == ACCOUNT
        return balance_micro

    return CatalogRoutes(
        catalog, balance, lambda provider_id: provider_id == "sandbox", {"cloudflare": Traits("synchronous")}
    )


def call(path: dict[str, str] | None = None, **query: Any) -> Call:
    principal = Principal(
        region="us",
        account_id=ACCOUNT,
        plan=Plan("unlimited", None, None),
        apikey_id=uuid4(),
        apikey_name="test",
        apikey_prefix="bye_test0",
        scopes=frozenset({"library:read"}),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        last_used_at=None,
        expires_at=None,
    )
    return Call("op", "us", "req_1", "http://localhost", principal, path or {}, query, {}, b"")


async def estimated(catalog: Catalog, identifier: str, balance_micro: int = 1_000_000, **query: Any) -> Any:
    lab, _, model = identifier.partition("/")
    reply = await routes(catalog, balance_micro).estimate(call({"lab": lab, "model": model}, **query))
    return msgspec.json.decode(dumps(reply.data))


async def test_estimate_of_an_image(catalog: Catalog) -> None:
    assert await estimated(catalog, "black-forest-labs/flux-schnell", 999_999, count=3) == {
        "model_identifier": "bfl/flux-schnell",
        "model_type": "image",
        "assets_count": 3,
        "cost_per_generation": 0.005,
        "cost_total_consumed": 0.015,
        "credit_balance": 0.999999,
        "credit_balance_can_afford": True,
        "credit_balance_max_affordable": 199,
    }


async def test_estimate_of_a_video_adds_rate_length_and_resolution(catalog: Catalog) -> None:
    data = await estimated(catalog, "google/veo-3", duration=8, resolution="1080p", audio=True)
    assert data["cost_per_second"] == 0.4
    assert data["duration_seconds"] == 8
    assert data["resolution"] == "1080p"
    assert data["cost_per_generation"] == 3.2
    assert data["credit_balance_can_afford"] is False
    assert data["credit_balance_max_affordable"] == 0


async def test_estimate_takes_the_smallest_duration_and_the_first_resolution(catalog: Catalog) -> None:
    data = await estimated(catalog, "sandbox/video")
    assert (data["duration_seconds"], data["resolution"]) == (1, "360p")
    assert "resolution" not in await estimated(catalog, "google/veo-2")
    assert "resolution" not in await estimated(catalog, "xai/grok-imagine-video", resolution="720p")


async def test_estimate_of_a_measured_length_is_for_the_maximum(catalog: Catalog) -> None:
    assert (await estimated(catalog, "runway/act-two"))["duration_seconds"] == 30
    assert (await estimated(catalog, "runway/act-two", duration=4))["cost_per_generation"] == 0.2


@pytest.mark.parametrize(("count", "used"), [(0, 1), (-5, 1), (1, 1), (100, 100), (101, 100)])
async def test_estimate_clamps_count(catalog: Catalog, count: int, used: int) -> None:
    assert (await estimated(catalog, "sandbox/image", count=count))["assets_count"] == used


async def test_estimate_of_tiers_by_resolution(catalog: Catalog) -> None:
    data = await estimated(catalog, "google/nano-banana-2", resolution="4K")
    assert (data["cost_per_generation"], data["resolution"]) == (0.16, "4K")


@pytest.mark.parametrize(
    ("identifier", "query", "field"),
    [
        ("google/veo-3", {"duration": 5}, "duration"),
        ("google/veo-3", {"resolution": "4k"}, "resolution"),
        ("google/veo-2", {"resolution": "720p"}, "resolution"),
        ("google/veo-2", {"audio": True}, "audio"),
        ("bfl/flux-schnell", {"duration": 5}, "duration"),
        ("bfl/flux-schnell", {"audio": True}, "audio"),
        ("runway/act-two", {"duration": 31}, "duration"),
        ("minimax/hailuo-02", {"duration": 10, "resolution": "1080p"}, "duration"),
    ],
)
async def test_estimate_of_the_impossible_400(
    catalog: Catalog, identifier: str, query: dict[str, Any], field: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await estimated(catalog, identifier, **query)
    assert caught.value.spec.code == "BSE2001"
    assert caught.value.details is not None
    assert caught.value.details["field"] == field


async def test_estimate_of_an_unknown_model_404(catalog: Catalog) -> None:
    with pytest.raises(ApiError) as caught:
        await estimated(catalog, "acme/one")
    assert caught.value.spec.code == "BSE2011"


async def test_every_offered_model_has_an_estimate(catalog: Catalog) -> None:
    for identifier in catalog.models:
        data = await estimated(catalog, identifier)
        assert msgspec.convert(data, EstimateData).cost_per_generation > 0


async def test_library_of_models_lists_what_is_on_offer(catalog: Catalog) -> None:
    reply = await routes(catalog).library_models(call())
    data = msgspec.json.decode(dumps(reply.data))
    assert msgspec.convert(data, LibraryModelsData).models_total == len(catalog.models)
    models = {model["model_identifier"]: model for model in data["models"]}
    assert list(models) == list(catalog.models)
    assert models["bfl/flux-schnell"] == {
        "model_type": "image",
        "model_identifier": "bfl/flux-schnell",
        "model_pricing": 0.005,
        "model_supported_provider": ["replicate", "fal", "cloudflare"],
        "schema": {
            "generation_prompt": True,
            "generation_ratio": ["1:1", "3:4", "4:3", "9:16", "16:9"],
            "generation_output_format": ["jpg", "png", "webp"],
            "generation_output_number": 4,
            "generation_input_file": False,
        },
        "specific_schema": [
            "generation_num_inference_steps", "generation_output_quality", "generation_seed",
        ],
    }  # fmt: skip
    assert models["kling/v2.6"]["model_pricing"] == {"noaudio": 0.07, "audio": 0.14}
    schema = models["google/veo-3"]["schema"]
    assert schema["generation_duration"] == [4, 6, 8]
    assert schema["generation_resolution"] == ["720p", "1080p"]
    assert schema["generation_generate_audio"] is True
    assert schema["generation_output_format"] == ["mp4"]


async def test_library_of_providers_counts_models_and_tells_status(catalog: Catalog) -> None:
    reply = await routes(catalog).library_providers(call())
    data = msgspec.json.decode(dumps(reply.data))
    assert msgspec.convert(data, LibraryProvidersData).providers_total == 9
    providers = {provider["provider_id"]: provider for provider in data["providers"]}
    assert providers["sandbox"]["provider_status"] == "available"
    assert providers["fal"]["provider_status"] == "unavailable"
    assert providers["sandbox"]["provider_website"] is None
    assert providers["cloudflare"]["babysea_implementation"] == {
        "delivery_method": "synchronous",
        "cancel_method": None,
        "webhook_verification": None,
        "error_mapping": "bse_error_codes",
        "cost_tracking": "per_generation_usd",
        "schema_conversion": "unified_to_native",
        "failover_strategy": "sequential_provider_chain",
        "health_monitoring": "circuit_breaker",
        "supported_media_types": ["image"],
        "supported_models_total": sum(
            "cloudflare" in model.provider_ids for model in catalog.models.values()
        ),
    }
