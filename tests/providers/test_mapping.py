"""From our fields to a provider's parameters, sizes in pixels, and the catalog's data that both rest on."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.catalog.catalog import load_catalog
from babysea_server.catalog.types import Model, ProviderModel
from babysea_server.providers.base import Job
from babysea_server.providers.mapping import native, nested, workflow
from babysea_server.providers.sizes import pixels, shape

CATALOG = load_catalog(None, joined=["comfyui", "google", "openai-compatible", "stability"]).all_models
BASE = CATALOG["bfl/flux-schnell"]
PAIRS = [
    pytest.param(model, offer, id=f"{model.identifier}@{offer.provider_id}")
    for model in CATALOG.values()
    for offer in model.providers.values()
]


def asked(offer: dict[str, Any], media: Any = "image", /, **inputs: Any) -> Job:
    """A job for a provider that takes the model as `offer` says."""
    provider = msgspec.structs.replace(
        BASE.providers["replicate"],
        **{
            "model": "own/model",
            "params": {},
            "ratio_map": {},
            "value_map": {},
            "formats": {},
            "fixed_params": {},
            "models_by_workflow": {},
            "models_by_resolution": {},
            **offer,
        },
    )
    model = replace(BASE, media=media, providers={"replicate": provider})
    given = {f"generation_{name}": value for name, value in inputs.items()}
    return Job(UUID(int=1), "replicate", model, given)


def params(offer: dict[str, Any], /, **inputs: Any) -> dict[str, Any]:
    return native(asked(offer, **inputs)).params


def test_fields_go_where_the_data_puts_them_and_the_rest_is_left_out() -> None:
    offer = {"params": {"generation_prompt": "text", "generation_seed": "seed", "generation_style": "style"}}
    assert params(offer, prompt="a", seed=0, quality="high") == {"text": "a", "seed": 0}


def test_false_and_zero_are_values() -> None:
    offer = {"params": {"generation_watermark": "watermark", "generation_cfg_scale": "cfg"}}
    assert params(offer, watermark=False, cfg_scale=0.0) == {"watermark": False, "cfg": 0.0}


def test_a_list_target_gets_a_list_and_any_other_the_first() -> None:
    offer = {"params": {"generation_input_file": "images[]", "generation_mask": "masks[]"}}
    assert params(offer, input_file=["a", "b"], mask="m") == {"images": ["a", "b"], "masks": ["m"]}
    assert params({"params": {"generation_input_file": "image"}}, input_file=["a", "b"]) == {"image": "a"}


def test_what_is_always_sent_is_sent_and_a_field_can_replace_it() -> None:
    offer = {"fixed_params": {"mode": "pro", "sound": True}, "params": {"generation_generate_audio": "sound"}}
    assert params(offer) == {"mode": "pro", "sound": True}
    assert params(offer, generate_audio=False) == {"mode": "pro", "sound": False}


def test_one_request_does_not_change_the_data_for_the_next() -> None:
    job = asked({"fixed_params": {"mode": "pro"}, "params": {"generation_prompt": "prompt"}}, prompt="a")
    native(job).params["mode"] = "changed"
    assert native(job).params == {"mode": "pro", "prompt": "a"}


def test_values_are_spelled_by_table_and_by_pattern() -> None:
    offer = {
        "params": {
            "generation_moderation": "moderation",
            "generation_output_format": "format",
            "generation_duration": "length",
            "generation_output_number": "n",
        },
        "value_map": {
            "generation_moderation": {"true": "strict", "false": "low"},
            "generation_output_format": {"jpg": "jpeg"},
            "generation_output_number": {"1": "one"},
        },
        "formats": {"generation_duration": "{}s"},
    }
    given = {"moderation": False, "output_format": "jpg", "duration": 5, "output_number": 1}
    assert params(offer, **given) == {"moderation": "low", "format": "jpeg", "length": "5s", "n": "one"}
    assert params(offer, output_format="png") == {"format": "png"}


def test_a_table_before_a_pattern() -> None:
    offer = {
        "params": {"generation_resolution": "size"},
        "value_map": {"generation_resolution": {"720p": "hd"}},
        "formats": {"generation_resolution": "<{}>"},
    }
    assert params(offer, resolution="720p") == {"size": "<hd>"}


RATIOS = {"16:9": {"720p": "1280*720", "1080p": "1920*1080"}, "1:1": "square"}


def test_a_ratio_is_spelled_by_its_table_and_by_the_resolution_where_that_decides() -> None:
    offer = {"params": {"generation_ratio": "size"}, "ratio_map": RATIOS}
    assert params(offer, ratio="16:9", resolution="1080p") == {"size": "1920*1080"}
    assert params(offer, ratio="16:9") == {"size": "1280*720"}, "the first where the model has no resolutions"
    assert params(offer, ratio="1:1", resolution="1080p") == {"size": "square"}
    assert params(offer, ratio="4:3") == {"size": "4:3"}


@pytest.mark.parametrize("order", [("ratio", "resolution"), ("resolution", "ratio")])
def test_one_parameter_for_ratio_and_resolution_holds_both(order: tuple[str, str]) -> None:
    offer = {"params": {f"generation_{name}": "size" for name in order}, "ratio_map": RATIOS}
    assert params(offer, ratio="16:9", resolution="1080p") == {"size": "1920*1080"}


def test_a_resolution_of_its_own_is_kept() -> None:
    offer = {"params": {"generation_ratio": "size", "generation_resolution": "quality"}, "ratio_map": RATIOS}
    assert params(offer, ratio="16:9", resolution="720p") == {"size": "1280*720", "quality": "720p"}


@pytest.mark.parametrize(
    ("media", "inputs", "found"),
    [
        ("image", {}, "text-to-image"),
        ("video", {"prompt": "a"}, "text-to-video"),
        ("image", {"input_file": ["a"]}, "image-to-image"),
        ("video", {"input_file_last_content": "a"}, "image-to-video"),
        ("video", {"input_file": ["a"], "input_video_file": ["b"]}, "video-to-video"),
        ("image", {"input_file": []}, "text-to-image"),
    ],
)
def test_a_workflow_is_known_by_what_a_request_brings(media: str, inputs: dict[str, Any], found: str) -> None:
    assert workflow(asked({}, media, **inputs)) == found


def test_the_upstream_model_follows_resolution_then_workflow() -> None:
    offer = {
        "models_by_workflow": {"image-to-image": "own/edit"},
        "models_by_resolution": {"4K": {"image-to-image": "own/edit-4k"}},
    }
    assert native(asked(offer)).model == "own/model"
    assert native(asked(offer, input_file=["a"])).model == "own/edit"
    assert native(asked(offer, input_file=["a"], resolution="1K")).model == "own/edit"
    assert native(asked(offer, input_file=["a"], resolution="4K")).model == "own/edit-4k"
    assert native(asked(offer, resolution="4K")).model == "own/model"


def test_dotted_names_become_objects() -> None:
    flat = {"input.prompt": "a", "input.size.w": 1, "model": "m", "input.size.h": 2}
    assert nested(flat) == {"input": {"prompt": "a", "size": {"w": 1, "h": 2}}, "model": "m"}
    assert nested({}) == {}


# ------------------------------------------------------------------------------- the data


@pytest.mark.parametrize(("model", "offer"), PAIRS)
def test_the_data_of_a_pair_can_be_spelled(model: Model, offer: ProviderModel) -> None:
    for ratio, sizes in offer.ratio_map.items():
        if isinstance(sizes, dict):
            missing = set(model.schema.resolutions or ()) - set(sizes)
            assert not missing, f"{ratio} has no size for {missing}"
    for field, pattern in offer.formats.items():
        assert pattern.format("x") != pattern, field
    for field, values in offer.value_map.items():
        spec = model.fields.get(field)
        if spec is not None and spec.type == "boolean":
            assert set(values) <= {"true", "false"}, field


# ------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("ratio", "found"),
    [
        ("16:9", (16.0, 9.0)),
        ("19.5:9", (19.5, 9.0)),
        ("auto", None),
        ("16", None),
        ("16:", None),
        ("0:1", None),
        ("-1:1", None),
        ("nan:1", None),
        ("inf:1", None),
        ("1:2:3", None),
    ],
)
def test_a_ratio_has_a_shape_and_words_have_none(ratio: str, found: tuple[float, float] | None) -> None:
    assert shape(ratio) == found


@pytest.mark.parametrize(
    ("ratio", "bounds", "found"),
    [
        ("1:1", {}, (1024, 1024)),
        ("16:9", {}, (1360, 768)),
        ("9:16", {}, (768, 1360)),
        ("match_input", {}, (1024, 1024)),
        ("16:9", {"high": 1280}, (1280, 720)),
        ("1:1", {"high": 512}, (512, 512)),
        ("1:2", {"low": 1024}, (1024, 2048)),
        ("8:1", {"low": 512, "high": 1024}, (1024, 512)),
        ("3:2", {"multiple": 64}, (1280, 832)),
    ],
)
def test_a_ratio_becomes_pixels(ratio: str, bounds: dict[str, int], found: tuple[int, int]) -> None:
    assert pixels(ratio, area=1024 * 1024, **bounds) == found


@given(
    across=st.integers(1, 64),
    down=st.integers(1, 64),
    area=st.integers(1, 64_000_000),
    multiple=st.sampled_from([1, 2, 8, 16, 32, 64]),
    low=st.integers(1, 1024),
    span=st.integers(64, 8192),
)
def test_sizes_stay_within_their_bounds(
    across: int, down: int, area: int, multiple: int, low: int, span: int
) -> None:
    high = low + span
    size = pixels(f"{across}:{down}", area=area, multiple=multiple, low=low, high=high)
    for edge in size:
        assert low <= edge <= high
        assert edge % multiple == 0
    assert (size[0] >= size[1]) or across <= down
    assert pixels(f"{down}:{across}", area=area, multiple=multiple, low=low, high=high) == size[::-1]
