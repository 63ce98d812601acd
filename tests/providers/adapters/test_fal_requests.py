"""fal: for every model it serves, what is sent holds against what its endpoints take."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import jsonschema_rs
import msgspec
import pytest
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of

from babysea_server.catalog.limits import admits, matches
from babysea_server.catalog.types import FieldSpec, Model
from babysea_server.providers.base import Job, Request
from babysea_server.providers.fal import Fal
from babysea_server.settings import ProviderSettings

# Not all of fal's models have a price, nor a length that it could be for.
CATALOG = {name: replace(model, pricing_unit="generation") for name, model in models_of("fal").items()}
SERVED = list(CATALOG.values())
QUEUE = "https://queue.fal.run"
FAL = Fal(ProviderSettings(api_key="id:secret"))


def job(model: str, **inputs: Any) -> Job:
    return Job(UUID(int=7), "fal", CATALOG[model], {"generation_prompt": "a tiger eye", **inputs})


FLUX = job("bfl/flux-schnell")


def sent(request: Request) -> dict[str, Any]:
    assert request.body is not None
    body = msgspec.json.decode(request.body)
    assert isinstance(body, dict)
    return body


_TEXT = {"type": "string", "minLength": 1}
_URL = {"type": "string", "pattern": "^https://"}
_URLS = {"type": "array", "items": _URL, "minItems": 1}
_BOOLEAN, _INTEGER, _NUMBER = {"type": "boolean"}, {"type": "integer"}, {"type": "number"}
_NAMED = ["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]
_PIXELS = {
    "type": "object",
    "properties": {side: {"type": "integer", "minimum": 64, "maximum": 4096} for side in ("width", "height")},
    "required": ["width", "height"],
    "additionalProperties": False,
}
_SIZE = {"anyOf": [{"enum": _NAMED}, _PIXELS]}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 9}
_RATIO = {"type": "string", "pattern": r"^[\d.]+:[\d.]+$"}

#: What every parameter is, whatever the model.
TYPES: Mapping[str, Any] = {
    "prompt": _TEXT,
    "negative_prompt": _TEXT,
    "image_size": _SIZE,
    "aspect_ratio": _RATIO,
    "resolution_mode": _RATIO,
    "output_format": {"enum": ["jpeg", "png", "webp"]},
    "safety_tolerance": {"enum": ["1", "2", "3", "4", "5", "6"]},
    "rendering_speed": {"enum": ["TURBO", "BALANCED", "QUALITY"]},
    "resolution": {"type": "string", "pattern": r"^\d+[pPkK]$"},
    **dict.fromkeys(("num_images", "max_images"), _COUNT),
    **dict.fromkeys(("seed", "num_inference_steps", "fps"), _INTEGER),
    **dict.fromkeys(("guidance_scale", "cfg_scale", "image_prompt_strength", "strength"), _NUMBER),
    **dict.fromkeys(
        (
            *("generate_audio", "audio", "raw", "loop", "camera_fixed", "enable_web_search"),
            *("enhance_prompt", "expand_prompt", "prompt_enhancer", "prompt_optimizer"),
            "enable_prompt_expansion",
        ),
        _BOOLEAN,
    ),
    **dict.fromkeys(("background", "quality", "style", "audio_setting", "enhance_prompt_mode"), _TEXT),
    **dict.fromkeys(
        (
            *("image_url", "start_image_url", "end_image_url", "tail_image_url", "mask_url"),
            *("video_url", "audio_url", "reference_image_url"),
        ),
        _URL,
    ),
    **dict.fromkeys(
        ("image_urls", "video_urls", "audio_urls", "reference_image_urls", "reference_video_urls"), _URLS
    ),
}
#: How families spell a clip's length, and a size of their own.
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    (r"kling-video/(v1|v2|o1)", {"duration": {"enum": ["5", "10"]}}),
    (r"kling-video/(v3|o3)", {"duration": {"enum": [str(seconds) for seconds in range(3, 16)]}}),
    (r"bytedance/seedance", {"duration": {"enum": [str(seconds) for seconds in range(2, 16)]}}),
    (r"fal-ai/veo", {"duration": {"enum": ["4s", "5s", "6s", "7s", "8s"]}}),
    (r"luma-dream-machine", {"duration": {"enum": ["5s", "9s"]}}),
    (r"pixverse", {"duration": {"enum": ["5", "8", "10"]}}),
    (
        r"minimax/hailuo",
        {"duration": {"enum": ["6", "10"]}, "resolution": {"enum": ["512P", "768P", "1080P"]}},
    ),
    (r"wan-25|wan/v2\.6", {"duration": {"enum": ["5", "10", "15"]}}),
    (r"wan/v2\.7|happy-horse|grok-imagine|sora-2|ltx-2|vidu", {"duration": _INTEGER}),
    (r"gpt-image-1", {"image_size": {"enum": ["1024x1024", "1024x1536", "1536x1024"]}}),
    (r"animate/", {"resolution": {"enum": ["480p", "720p"]}}),
    (r"ideogram/v2", {"style": {"enum": ["auto", "general", "realistic", "design", "render_3D", "anime"]}}),
    (r"ideogram/v3", {"style": {"enum": ["AUTO", "GENERAL", "REALISTIC", "DESIGN"]}}),
]
#: Endpoints whose inputs are documented whole.
DOCUMENTED: dict[str, dict[str, Any]] = {
    "fal-ai/flux/schnell": {
        "prompt": _TEXT,
        "image_size": _SIZE,
        "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": 12},
        "seed": _INTEGER,
        "guidance_scale": {"type": "number", "minimum": 1, "maximum": 20},
        "sync_mode": _BOOLEAN,
        "num_images": {"type": "integer", "minimum": 1, "maximum": 4},
        "enable_safety_checker": _BOOLEAN,
        "output_format": {"enum": ["jpeg", "png"]},
        "acceleration": {"enum": ["none", "regular", "high"]},
    },
    "fal-ai/kling-video/o3/pro/text-to-video": {
        "prompt": _TEXT,
        "duration": {"enum": [str(seconds) for seconds in range(3, 16)]},
        "aspect_ratio": {"enum": ["16:9", "9:16", "1:1"]},
        "generate_audio": _BOOLEAN,
        "shot_type": {"enum": ["customize"]},
    },
}
#: Needed wherever an endpoint has this in its name.
NEEDED = {
    "/image-to-video": {"image_url", "start_image_url", "video_url"},
    "/edit": {"image_urls", "image_url", "video_url"},
    "/reference-to-video": {"image_urls", "video_urls", "reference_image_urls", "reference_video_urls"},
    "/animate/": {"video_url"},
    "/video-edit": {"video_url"},
    "/image-to-image": {"image_url", "image_urls"},
}


def requests(model: Model) -> Iterator[Job]:
    """What customers may send: each value alone, and every set of sources with every shape and size."""
    yield from jobs("fal", model)
    sources = [name for name, spec in model.fields.items() if spec.type in ("url", "url-array")]
    required = {name for name in sources if model.fields[name].required}
    least = {name: value for name, value in next(jobs("fal", model)).inputs.items() if name not in sources}
    for count in range(len(sources) + 1):
        for given in itertools.combinations(sources, count):
            if required <= set(given):
                for shape in shapes(model):
                    inputs = least | shape | {name: source(model.fields[name]) for name in given}
                    if is_possible(model, inputs):
                        yield Job(ATTEMPT, "fal", model, inputs)


def shapes(model: Model) -> Iterator[dict[str, Any]]:
    """Every shape in every size."""
    for ratio, size in itertools.product(model.schema.ratios or (None,), model.schema.resolutions or (None,)):
        asked = {"generation_ratio": ratio, "generation_resolution": size}
        yield {name: value for name, value in asked.items() if value is not None}


def source(spec: FieldSpec) -> str | list[str]:
    """A file that a request works on."""
    url = f"https://files.example.com/{spec.name}"
    return [url] if spec.type == "url-array" else url


def is_possible(model: Model, inputs: Mapping[str, Any]) -> bool:
    """Whether the model, and fal of it, takes these."""
    excluded = any(matches(condition, inputs, model.fields) for condition in model.excludes)
    return not excluded and admits(model.providers["fal"], inputs, model)


def schema_of(model: Model, endpoint: str) -> dict[str, Any]:
    """What the endpoint takes: as documented, or what fal takes anywhere under the names of the catalog."""
    if endpoint in DOCUMENTED:
        properties = DOCUMENTED[endpoint]
    else:
        offer = model.providers["fal"]
        names = {target.removesuffix("[]") for target in offer.params.values()} | set(offer.fixed_params)
        if endpoint.endswith("/reference-to-video"):
            names.add("image_urls")
        special = next((own for family, own in FAMILIES if re.search(family, endpoint)), {})
        properties = {
            name: special.get(name) or TYPES[name] for name in names if name in TYPES or name in special
        }
    return {"type": "object", "properties": properties, "additionalProperties": False}


@pytest.mark.parametrize("model", SERVED, ids=lambda model: model.identifier)
def test_every_admitted_request_is_what_the_endpoint_takes(model: Model) -> None:
    endpoints = set()
    for asked in requests(model):
        request = FAL.build_submit(asked)
        endpoint, body = urlsplit(request.url).path.removeprefix("/"), sent(request)
        endpoints.add(endpoint)
        faults = jsonschema_rs.Draft202012Validator(schema_of(model, endpoint)).iter_errors(body)
        assert [str(fault) for fault in faults] == [], (endpoint, body)
        assert body.get("prompt") == asked.inputs.get("generation_prompt")
        brings = [name for name in asked.inputs if model.fields[name].type in ("url", "url-array")]
        for part, names in NEEDED.items():
            assert part not in endpoint or not brings or names & set(body), (endpoint, body)
    offer = model.providers["fal"]
    by_size = [endpoint for others in offer.models_by_resolution.values() for endpoint in others.values()]
    assert endpoints >= set(offer.models_by_workflow.values()) | set(by_size)
    assert endpoints <= {offer.model, *offer.models_by_workflow.values(), *by_size}


@pytest.mark.parametrize("model", SERVED, ids=lambda model: model.identifier)
def test_what_a_request_must_choose_can_be_told(model: Model) -> None:
    told = model.providers["fal"].params
    for name, spec in model.fields.items():
        is_choice = name in ("generation_duration", "generation_resolution") and len(spec.enum or ()) > 1
        is_several = name == "generation_output_number" and spec.max != 1
        if is_choice or is_several or (spec.required and not spec.enum):
            assert name in told


@pytest.mark.parametrize(
    ("model", "inputs", "size"),
    [
        ("bfl/flux-schnell", {"generation_ratio": "1:1"}, "square_hd"),
        ("bfl/flux-schnell", {"generation_ratio": "16:9"}, "landscape_16_9"),
        ("bfl/flux-schnell", {"generation_ratio": "3:4"}, "portrait_4_3"),
        ("gpt/image-1", {"generation_ratio": "2:3"}, "1024x1536"),
        ("gpt/image-2", {"generation_ratio": "9:16"}, "portrait_16_9"),
        ("gpt/image-2", {"generation_ratio": "3:2"}, {"width": 1248, "height": 832}),
        (
            "bytedance/seedream-4",
            {"generation_ratio": "1:1", "generation_resolution": "1K"},
            {"width": 1024, "height": 1024},
        ),
        (
            "bytedance/seedream-4",
            {"generation_ratio": "16:9", "generation_resolution": "2K"},
            {"width": 2736, "height": 1520},
        ),
        (
            "bytedance/seedream-4",
            {"generation_ratio": "16:9", "generation_resolution": "4K"},
            {"width": 4096, "height": 2304},
        ),
        (
            "bytedance/seedream-5-lite",
            {"generation_ratio": "1:1", "generation_resolution": "3K"},
            {"width": 3072, "height": 3072},
        ),
    ],
)
def test_a_ratio_is_a_named_size_or_pixels_of_the_tier(model: str, inputs: dict[str, Any], size: Any) -> None:
    assert sent(FAL.build_submit(job(model, **inputs)))["image_size"] == size


@pytest.mark.parametrize(
    "model", [model for model in SERVED if "image_size" in model.providers["fal"].params.values()]
)
def test_pixels_keep_the_ratio_and_the_tier(model: Model) -> None:
    for ratio, tier in itertools.product(model.schema.ratios, model.schema.resolutions or (None,)):
        inputs = {"generation_ratio": ratio} | ({"generation_resolution": tier} if tier else {})
        size = sent(FAL.build_submit(job(model.identifier, **inputs)))["image_size"]
        if isinstance(size, dict):
            across, down = map(float, ratio.split(":"))
            assert size["width"] / size["height"] == pytest.approx(across / down, rel=0.03)
            assert size["width"] * size["height"] <= (1024 * float((tier or "1K").removesuffix("K"))) ** 2


@pytest.mark.parametrize(
    ("model", "inputs", "endpoint", "told"),
    [
        (
            "bytedance/seedance-2.5",
            {
                "generation_duration": 5,
                "generation_resolution": "720p",
                "generation_input_file": ["https://files.example/a.png"],
                "generation_input_video_file": ["https://files.example/1.mp4", "https://files.example/2.mp4"],
                "generation_input_audio_file": ["https://files.example/a.mp3"],
            },
            "bytedance/seedance-2.5/reference-to-video",
            {
                "prompt": "a tiger eye",
                "duration": "5",
                "resolution": "720p",
                "image_urls": ["https://files.example/a.png"],
                "video_urls": ["https://files.example/1.mp4", "https://files.example/2.mp4"],
                "audio_urls": ["https://files.example/a.mp3"],
            },
        ),
        (
            "wan/2.7-r2v",
            {
                "generation_duration": 4,
                "generation_input_file": ["https://files.example/a.png", "https://files.example/b.png"],
                "generation_input_video_file": ["https://files.example/1.mp4"],
            },
            "fal-ai/wan/v2.7/reference-to-video",
            {
                "prompt": "a tiger eye",
                "duration": 4,
                "reference_image_urls": ["https://files.example/a.png", "https://files.example/b.png"],
                "reference_video_urls": ["https://files.example/1.mp4"],
            },
        ),
        (
            "minimax/hailuo-02",
            {
                "generation_duration": 6,
                "generation_resolution": "512p",
                "generation_input_file": ["https://files.example/a.png"],
            },
            "fal-ai/minimax/hailuo-02/standard/image-to-video",
            {
                "prompt": "a tiger eye",
                "duration": "6",
                "resolution": "512P",
                "image_url": "https://files.example/a.png",
            },
        ),
        (
            "google/nano-banana",
            {
                "generation_output_format": "jpg",
                "generation_input_file": ["https://files.example/a.png", "https://files.example/b.png"],
            },
            "fal-ai/nano-banana/edit",
            {
                "prompt": "a tiger eye",
                "output_format": "jpeg",
                "image_urls": ["https://files.example/a.png", "https://files.example/b.png"],
            },
        ),
        (
            "bfl/flux-2-pro",
            {"generation_moderation": True},
            "fal-ai/flux-2-pro",
            {"prompt": "a tiger eye", "safety_tolerance": "1"},
        ),
        (
            "bytedance/seedance-1-pro",
            {"generation_duration": 5, "generation_seed": -1},
            "fal-ai/bytedance/seedance/v1/pro/text-to-video",
            {"prompt": "a tiger eye", "duration": "5"},
        ),
    ],
)
def test_inputs_decide_the_endpoint_and_its_words(
    model: str, inputs: dict[str, Any], endpoint: str, told: dict[str, Any]
) -> None:
    request = FAL.build_submit(job(model, **inputs))
    assert (request.url, sent(request)) == (f"{QUEUE}/{endpoint}", told)


def test_a_submit_names_the_callback_and_when_it_is_too_late_to_begin() -> None:
    called_back = replace(FLUX, callback_url="https://cp.example/callbacks/fal/a-b?c=d", timeout_s=120.4)
    request = FAL.build_submit(called_back)
    assert (request.method, request.headers["authorization"]) == ("POST", "Key id:secret")
    assert parse_qs(urlsplit(request.url).query) == {
        "fal_webhook": ["https://cp.example/callbacks/fal/a-b?c=d"]
    }
    assert request.headers["x-fal-request-timeout"] == "120"
    assert urlsplit(FAL.build_submit(FLUX).url).query == ""
    assert "x-fal-request-timeout" not in FAL.build_submit(FLUX).headers


def test_options_become_headers() -> None:
    options = {"priority": "low", "outputs_expire_s": "3600"}
    headers = Fal(ProviderSettings(api_key="id:secret", options=options)).build_submit(FLUX).headers
    assert headers["x-fal-queue-priority"] == "low"
    assert msgspec.json.decode(headers["x-fal-object-lifecycle-preference"]) == {
        "expiration_duration_seconds": 3600
    }
