"""What `generate` sends: the path for the model's kind, and fields under the API's names."""

from typing import Any

import httpx
import pytest
from tests.sdk.clients import KINDS, JumpingClock, Network, accepted, bodies, failure, models, side

from babysea import InvalidInputError, InvalidResponseError, Job, NotFoundError, PermissionDeniedError


@pytest.mark.parametrize("kind", KINDS)
async def test_the_path_follows_what_the_model_makes_and_the_models_are_read_once(kind: str) -> None:
    network = Network(models(image="image", video="video"), accepted(), accepted())
    client = side(kind, network)
    await client.call("generate", "sandbox/image", "a fox")
    await client.call("generate", "sandbox/video", "waves", duration=5)
    assert network.sent == [
        "GET /v1/library/models",
        "POST /v1/generate/image/sandbox/image",
        "POST /v1/generate/video/sandbox/video",
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_models_are_read_again_after_five_minutes_and_once_for_a_new_one(kind: str) -> None:
    time = JumpingClock()
    network = Network(models(image="image"), models(image="image", video="video"), models(image="image"))
    client = side(kind, network, time)
    await client.call("library.models")
    assert (await client.call("library.model", "sandbox/video")).model_type == "video"
    time.elapsed += 299
    await client.call("library.models")
    assert len(network.requests) == 2
    time.elapsed += 1
    await client.call("library.models")
    assert len(network.requests) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_model_that_does_not_exist_is_told_with_similar_ones(kind: str) -> None:
    network = Network(models(image="image", video="video"))
    with pytest.raises(NotFoundError, match="sandbox/image") as caught:
        await side(kind, network).call("library.model", "sandbox/imag")
    assert caught.value.code == "BSE2011"
    assert len(network.requests) == 1, "what was read just now is not read again"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["alias", "forbidden"])
async def test_where_the_models_do_not_tell_the_kind_it_is_tried(kind: str, library: str) -> None:
    first = models(image="image") if library == "alias" else failure(403, "BSE1003")
    network = Network(first, failure(400, "BSE2012"), accepted())
    answer = await side(kind, network).call("generate", "sandbox/clip", "waves", duration=5)
    assert network.sent[1:] == [
        "POST /v1/generate/image/sandbox/clip",
        "POST /v1/generate/video/sandbox/clip",
    ]
    assert {request.headers["Idempotency-Key"] for request in network.requests[1:]} == {
        answer.idempotency_key
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_without_the_scope_is_refused_by_the_server_alone(kind: str) -> None:
    network = Network(failure(403, "BSE1003"), failure(403, "BSE1003"))
    with pytest.raises(PermissionDeniedError):
        await side(kind, network).call("generate", "sandbox/image", "a fox")


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": "a fox", "ratio": "16:9"}, {"generation_prompt": "a fox", "generation_ratio": "16:9"}),
    ({"generation_ratio": "16:9"}, {"generation_ratio": "16:9"}),
    ({"seed": 7}, {"generation_seed": 7}),
    ({"generation_seed": 7, "seed": None}, {"generation_seed": 7}),
    ({"output_format": "png", "output_number": 2}, {"generation_output_format": "png", "generation_output_number": 2}),
    ({"input_file": "https://a/b"}, {"generation_input_file": ["https://a/b"]}),
    ({"input_file": ("https://a/b", "https://a/c")}, {"generation_input_file": ["https://a/b", "https://a/c"]}),
    ({"generation_input_file": "https://a/b"}, {"generation_input_file": ["https://a/b"]}),
    ({"input_file_last_content": "https://a/b"}, {"generation_input_file_last_content": "https://a/b"}),
    ({"provider_order": "fastest"}, {"generation_provider_order": "fastest"}),
    ({"provider_order": ["fal", "replicate"]}, {"generation_provider_order": "fal, replicate"}),
    (
        {"duration": 5, "resolution": "720p", "generate_audio": False},
        {"generation_duration": 5, "generation_resolution": "720p", "generation_generate_audio": False},
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("given", "expected"), FIELDS)
async def test_fields_are_sent_under_the_names_of_the_api(
    kind: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    network = Network(models(image="image"), accepted())
    await side(kind, network).call("generate", "sandbox/image", **given)
    assert bodies(network.requests) == [expected]
    assert Job("sandbox/image", **given).fields == expected


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("given twice", {"prompt": "a", "generation_prompt": "b"}),
    ("given twice", {"seed": 1, "generation_seed": 1}),
    ("no JSON form", {"seed": object()}),
    ("no JSON form", {"seed": float("nan")}),
    ("idempotency key", {"idempotency_key": "no spaces"}),
    ("idempotency key", {"idempotency_key": "x" * 256}),
    ("idempotency key", {"idempotency_key": ""}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reason", "given"), REFUSED)
async def test_what_cannot_be_meant_is_refused_before_it_is_sent(
    kind: str, reason: str, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=reason) as caught:
        await side(kind, Network()).call("generate", "sandbox/image", **given)
    assert caught.value.status is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["", "image", "a/b/c", "a/../status", "../x", "A/b", "a/b?x=1", "a/ b"])
async def test_what_is_no_model_is_refused_before_it_is_sent(kind: str, model: str) -> None:
    for method in ("generate", "estimate"):
        with pytest.raises(InvalidInputError, match="lab/name"):
            await side(kind, Network()).call(method, model)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_request_tells_who_sends_it(kind: str) -> None:
    network = Network(models(image="image"), accepted())
    await side(kind, network).call("generate", "sandbox/image", "a fox")
    for request in network.requests:
        headers = request.headers
        assert headers["Authorization"].startswith("Bearer bye_")
        assert headers["X-BabySea-SDK-Name"] == "babysea-python"
        assert headers["X-BabySea-SDK-Runtime"] == "python"
        assert headers["X-BabySea-SDK-Version"] == headers["User-Agent"].removeprefix("babysea-python/")
        assert headers["X-BabySea-SDK-Runtime-Version"]
    assert network.requests[1].headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("kind", KINDS)
async def test_members_of_a_later_version_are_kept_and_wrong_ones_named(kind: str) -> None:
    answer = models(image="image").json()
    answer["data"]["models"][0]["colour"] = "blue"
    wrong = models(image="image").json()
    wrong["data"]["models"][0]["schema"] = "?"
    client = side(kind, Network(httpx.Response(200, json=answer)))
    library = await client.call("library.models")
    assert library.models[0].extra == {"colour": "blue"}
    assert (library.raw, library.request_id) == (answer["data"], "req_1")
    with pytest.raises(InvalidResponseError, match=r"data\.models\.schema is of the wrong type"):
        await side(kind, Network(httpx.Response(200, json=wrong))).call("library.models")
