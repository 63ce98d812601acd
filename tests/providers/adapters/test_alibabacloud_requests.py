"""What Alibaba Cloud is asked: for every model, each admissible request is one that is documented."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.emulators.alibabacloud_models import MODELS as DOCUMENTED
from tests.emulators.alibabacloud_models import complaints
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of

from babysea_server.catalog.types import Model
from babysea_server.providers.alibabacloud import AlibabaCloud
from babysea_server.providers.base import (
    Job,
    Request,
)
from babysea_server.providers.inputs import InputRefusedError
from babysea_server.settings import ProviderSettings, SettingsError

#: Some cannot be priced yet; here all can.
MODELS = {
    identifier: model if "generation_duration" in model.fields else replace(model, max_seconds=30)
    for identifier, model in models_of("alibabacloud").items()
}
CLOUD = AlibabaCloud(ProviderSettings(api_key="sk-1"))
BASE = "https://dashscope-intl.aliyuncs.com/api/v1"
FILES = [f"https://files.example.com/{index}" for index in range(3)]
COLORS = {"#C2D1E6": 1, "#CDD8E9": 1, "#B5C8DB": 1.0}


def job(model: str, **inputs: Any) -> Job:
    fields = MODELS[model].fields
    defaults = {name: spec.default for name, spec in fields.items() if spec.default is not None}
    if "generation_prompt" in fields:
        defaults["generation_prompt"] = "a kitten"
    return Job(ATTEMPT, "alibabacloud", MODELS[model], {**defaults, **inputs})


FILM = job("wan/2.6-t2v", generation_duration=5)


def sent(request: Request) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.body is not None
    assert request.headers["authorization"] == "Bearer sk-1"
    body = msgspec.json.decode(request.body)
    assert isinstance(body, dict)
    return body


def built(model: str, **inputs: Any) -> dict[str, Any]:
    return sent(CLOUD.build_submit(job(model, **inputs)))


def _admissible(model: Model) -> Iterator[Job]:
    for one in jobs("alibabacloud", model):
        given = dict(one.inputs)
        if "generation_color_palette" in given:
            given["generation_color_palette"] = COLORS
        yield replace(one, inputs=given)
        for ratio, resolution in itertools.product(model.schema.ratios, model.schema.resolutions or ()):
            if resolution != "4K" or not given.get("generation_input_file"):
                both = {"generation_ratio": ratio, "generation_resolution": resolution}
                yield replace(one, inputs={**given, **both})


@pytest.mark.parametrize("identifier", MODELS)
def test_every_admissible_request_is_one_that_is_documented(identifier: str) -> None:
    seen = 0
    for one in _admissible(MODELS[identifier]):
        request = CLOUD.build_submit(one)
        body = sent(request)
        endpoint, _ = DOCUMENTED[body["model"]]
        assert request.url == f"{BASE}/services/aigc/{endpoint}"
        at_once = endpoint == "multimodal-generation/generation"
        assert CLOUD.inline(one) is at_once
        assert request.headers.get("x-dashscope-async") == (None if at_once else "enable")
        assert complaints(body) == [], one.inputs
        seen += 1
    assert seen > 3


def test_every_documented_model_is_served() -> None:
    assert {model.providers["alibabacloud"].model for model in MODELS.values()} == set(DOCUMENTED)


@pytest.mark.parametrize("identifier", MODELS)
def test_sizes_in_pixels_have_the_shape_that_was_asked_for_and_fit(identifier: str) -> None:
    for one in _admissible(MODELS[identifier]):
        size = sent(CLOUD.build_submit(one)).get("parameters", {}).get("size")
        if size is None:
            continue
        width, height = map(int, size.split("*"))
        across, down = map(int, str(one.inputs["generation_ratio"]).split(":"))
        assert width / height == pytest.approx(across / down, rel=0.05)
        edge = {"1K": 1024, "4K": 4096}.get(str(one.inputs.get("generation_resolution")), 2048)
        assert 480 * 480 <= width * height <= edge * edge


def test_a_conversation_shows_pictures_before_it_says_what_to_do_with_them() -> None:
    assert built(
        "qwen/image-2",
        generation_input_file=FILES[:2],
        generation_negative_prompt="blur",
        generation_ratio="16:9",
        generation_seed=7,
    ) == {
        "model": "qwen-image-2.0",
        "input": {
            "messages": [
                {"role": "user", "content": [{"image": FILES[0]}, {"image": FILES[1]}, {"text": "a kitten"}]}
            ]
        },
        "parameters": {
            "size": "2688*1536",
            "n": 1,
            "prompt_extend": True,
            "watermark": False,
            "seed": 7,
            "negative_prompt": "blur",
        },
    }


def test_a_clip_by_words_has_its_size_in_pixels_until_wan_2_7() -> None:
    inputs = {"generation_duration": 5, "generation_resolution": "1080p", "generation_ratio": "9:16"}
    old, new = built("wan/2.6-t2v", **inputs), built("wan/2.7-t2v", **inputs)
    assert old["parameters"] == {"size": "1080*1920", "duration": 5, "prompt_extend": True}
    assert old["input"] == {"prompt": "a kitten"}
    assert {name: new["parameters"][name] for name in ("resolution", "ratio", "duration")} == {
        "resolution": "1080P",
        "ratio": "9:16",
        "duration": 5,
    }


def test_each_file_of_a_clip_has_its_part_in_it() -> None:
    body = built(
        "wan/2.7-i2v-2026-04-25",
        generation_duration=5,
        generation_input_file=FILES[:1],
        generation_input_file_last_content=FILES[1],
        generation_input_audio_file=FILES[2:],
    )
    parts = {part["type"]: part["url"] for part in body["input"]["media"]}
    assert parts == {"first_frame": FILES[0], "last_frame": FILES[1], "driving_audio": FILES[2]}
    body = built("happyhorse/1.0-video-edit", generation_input_video_file=FILES[:1])
    assert body["input"]["media"] == [{"type": "video", "url": FILES[0]}]
    old = built("wan/2.6-i2v", generation_duration=5, generation_input_file=FILES[:1])
    assert old["input"] == {"prompt": "a kitten", "img_url": FILES[0]}


def test_a_voice_belongs_to_the_reference_at_its_place() -> None:
    inputs = {"generation_duration": 5, "generation_input_file": FILES[:2]}
    body = built("wan/2.7-r2v", **inputs, generation_input_audio_file=FILES[2:])
    assert body["input"]["media"] == [
        {"type": "reference_image", "url": FILES[0], "reference_voice": FILES[2]},
        {"type": "reference_image", "url": FILES[1]},
    ]
    with pytest.raises(InputRefusedError) as refusal:
        built("wan/2.7-r2v", **inputs, generation_input_audio_file=FILES)
    assert refusal.value.code == "BSE2008"


def test_an_edit_names_its_operation_and_its_mask() -> None:
    body = built(
        "wan/2.1-imageedit",
        generation_function="description_edit_with_mask",
        generation_input_file=FILES[:1],
        generation_mask=FILES[1],
    )
    assert body["input"] == {
        "prompt": "a kitten",
        "function": "description_edit_with_mask",
        "base_image_url": FILES[0],
        "mask_image_url": FILES[1],
    }
    assert body["parameters"]["strength"] == 0.5


def test_pictures_from_words_alone_are_drawn_interleaved() -> None:
    parameters = built("wan/2.6-image")["parameters"]
    assert (parameters["enable_interleave"], parameters["n"], parameters["max_images"]) == (True, 1, 1)
    parameters = built("wan/2.6-image", generation_input_file=FILES, generation_output_number=3)["parameters"]
    assert (parameters["enable_interleave"], parameters["n"]) == (False, 3)
    assert "max_images" not in parameters


def test_regions_are_boxes_of_the_picture_at_their_place() -> None:
    def boxes(*regions: str, pictures: int = 2) -> Any:
        inputs = {"generation_input_file": FILES[:pictures], "generation_bbox_list": list(regions)}
        return built("wan/2.7-image", **inputs)["parameters"]["bbox_list"]

    assert boxes("989,515,1138,681") == [[[989, 515, 1138, 681]], []]
    assert boxes("", "[[1, 2, 3, 4], [5, 6, 7, 8.4]]") == [[], [[1, 2, 3, 4], [5, 6, 7, 8]]]
    for wrong in (("1,2,3",), ("1,2,3,4",) * 3):
        with pytest.raises(InputRefusedError):
            boxes(*wrong)


def test_a_palette_makes_a_hundred_per_cent() -> None:
    def palette(colors: Any) -> Any:
        return built("wan/2.7-image", generation_color_palette=colors)["parameters"]["color_palette"]

    assert [color["ratio"] for color in palette(COLORS)] == ["33.34%", "33.33%", "33.33%"]
    assert palette({"#C2D1E6": 3, "#CDD8E9": 1})[0] == {"hex": "#C2D1E6", "ratio": "75.00%"}
    odd: list[Any] = [{}, {"red": 1}, {"#C2D1E6": 0}, {"#C2D1E6": -1, "#CDD8E9": 2}, {"#C2D1E6": {}}]
    for wrong in odd:
        with pytest.raises(InputRefusedError):
            palette(wrong)


@pytest.mark.parametrize(
    ("options", "base"),
    [
        ({}, BASE),
        ({"region": "us-east-1"}, "https://dashscope-us.aliyuncs.com/api/v1"),
        ({"region": "cn-beijing", "workspace": "ws-1"}, "https://dashscope.aliyuncs.com/api/v1"),
        (
            {"region": "eu-central-1", "workspace": "ws-1"},
            "https://ws-1.eu-central-1.maas.aliyuncs.com/api/v1",
        ),
    ],
)
def test_each_region_has_its_host(options: dict[str, str], base: str) -> None:
    cloud = AlibabaCloud(ProviderSettings(api_key="sk-1", options=options))
    assert cloud.base == base
    assert cloud.build_submit(FILM).headers.get("x-dashscope-workspace") == options.get("workspace")


@pytest.mark.parametrize(
    "options",
    [{"region": "mars"}, {"region": "eu-central-1"}, {"region": "cn-hongkong", "workspace": "evil.example/"}],
)
def test_a_region_that_has_no_host_is_told_at_the_start(options: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        AlibabaCloud(ProviderSettings(api_key="sk-1", options=options))


def test_a_base_address_of_ones_own_is_taken_as_it_is() -> None:
    own = AlibabaCloud(ProviderSettings(api_key="sk-1", base_url="https://proxy.example/api/v1/"))
    assert own.base == "https://proxy.example/api/v1"
