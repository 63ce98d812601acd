"""Prices, checked by hand against the catalog's figures."""

from decimal import Decimal
from typing import Any

import pytest

from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.catalog.markup import Markup
from babysea_server.catalog.normalise import normalise
from babysea_server.catalog.pricing import quote

PROMPT = {"generation_prompt": "a lighthouse"}
CLIP = {"generation_input_video_file": ["https://example.com/clip.mp4"]}


@pytest.mark.parametrize(
    ("identifier", "body", "cost_micro"),
    [
        ("bfl/flux-schnell", PROMPT, 5_000),
        ("bfl/flux-schnell", {**PROMPT, "generation_output_number": 4}, 20_000),
        ("qwen/image-plus", PROMPT, 28_700),
        ("google/nano-banana-2", PROMPT, 80_000),
        ("google/nano-banana-2", {**PROMPT, "generation_resolution": "4K"}, 160_000),
        ("google/nano-banana-pro", {**PROMPT, "generation_resolution": "2K"}, 150_000),
        ("gpt/image-2", PROMPT, 53_000),
        ("gpt/image-2", {**PROMPT, "generation_quality": "high", "generation_output_number": 3}, 633_000),
        ("sandbox/image", {**PROMPT, "generation_output_number": 2}, 2_000),
        ("google/veo-2", {**PROMPT, "generation_duration": 5}, 2_500_000),
        ("google/veo-3", {**PROMPT, "generation_duration": 8}, 1_600_000),
        ("google/veo-3", {**PROMPT, "generation_duration": 8, "generation_generate_audio": True}, 3_200_000),
        (
            "bytedance/seedance-1.5-pro",
            {**PROMPT, "generation_duration": 7, "generation_resolution": "720p", "generation_generate_audio": True},
            364_000,
        ),
        ("kling/v2.6", {**PROMPT, "generation_duration": 10}, 700_000),
        ("kling/v2.6", {**PROMPT, "generation_duration": 10, "generation_generate_audio": True}, 1_400_000),
        ("minimax/hailuo-02", {**PROMPT, "generation_duration": 6}, 102_000),
        ("minimax/hailuo-2.3", {**PROMPT, "generation_duration": 6, "generation_resolution": "1080p"}, 490_200),
        ("xai/grok-imagine-video", {**PROMPT, "generation_duration": 3, "generation_resolution": "720p"}, 150_000),
        ("wan/2.7-videoedit", {**PROMPT, **CLIP, "generation_duration": 2, "generation_resolution": "1080p"}, 286_800),
        ("sandbox/video", {**PROMPT, "generation_duration": 15, "generation_resolution": "480p"}, 15_000),
        ("runway/gen-4-aleph", {**PROMPT, **CLIP}, 1_800_000),
        ("happyhorse/1.0-video-edit", {**PROMPT, **CLIP, "generation_resolution": "1080p"}, 8_400_000),
    ],
)  # fmt: skip
def test_price(catalog: Catalog, identifier: str, body: dict[str, Any], cost_micro: int) -> None:
    assert normalise(catalog.model(identifier), body).cost_micro == cost_micro


def test_measured_length_reserves_the_maximum_and_tells_the_rate(catalog: Catalog) -> None:
    request = normalise(catalog.model("runway/act-two"), CLIP)
    assert request.cost_micro == 50_000 * 30
    assert request.rate_micro_per_second == 50_000
    fixed = normalise(catalog.model("google/veo-2"), {**PROMPT, "generation_duration": 5})
    assert fixed.rate_micro_per_second is None


def test_frame_count_is_priced_when_it_is_longer_than_the_duration(catalog: Catalog) -> None:
    model = catalog.model("bytedance/seedance-1-pro")  # 0.03 a second at 480p
    body = {**PROMPT, "generation_duration": 2, "generation_frames": 289}
    assert normalise(model, body).cost_micro == 30_000 * 13
    assert (
        normalise(model, {**body, "generation_duration": 12, "generation_frames": 29}).cost_micro == 360_000
    )


def test_price_is_rounded_once_half_up() -> None:
    catalog = load_catalog(markup=Markup(default=Decimal("1.00001")))
    model = catalog.model("bfl/flux-schnell")  # 5,000.05 micro-credits each
    assert quote(model, {"generation_output_number": 1}).cost_micro == 5_000
    assert quote(model, {"generation_output_number": 10}).cost_micro == 50_001


def test_quality_without_a_tier_is_billed_by_the_dearest(catalog: Catalog) -> None:
    assert quote(catalog.model("gpt/image-2"), {"generation_quality": "auto"}).cost_micro == 211_000


def test_model_without_a_price_has_no_quote(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="no price"):
        quote(catalog.all_models["nvidia/sana"], {})
