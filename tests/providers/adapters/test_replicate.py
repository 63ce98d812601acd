"""Replicate: what is sent for every model, and what each answer means."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import jsonschema_rs
import pytest
from tests.emulators.replicate_inputs import INPUTS
from tests.providers.adapters.admissible import jobs, models_of

from babysea_server.catalog.limits import admits
from babysea_server.catalog.types import Model
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Callback,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.providers.replicate import Replicate
from babysea_server.settings import ProviderSettings

#: Without a price a model needs no length to be priced by, either.
CATALOG = {
    name: model if "generation_duration" in model.fields else replace(model, pricing_unit="generation")
    for name, model in models_of("replicate").items()
}
MODELS = sorted(CATALOG)
BASE = "https://api.replicate.com/v1"
PROVIDER = Replicate(ProviderSettings(api_key="r8_key"))
ATTEMPT = UUID("0197c0de-0000-7000-8000-0000a5a5a5a5")
OWN_SEED = ATTEMPT.int & 0x7FFFFFFF
OPENED = datetime(2026, 4, 28, 12, tzinfo=UTC)
TICKET = Accepted("8r2mexample")

BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "input": {"type": "object"},
        "webhook": {"type": "string", "format": "uri"},
        "webhook_events_filter": {
            "type": "array",
            "items": {"enum": ["start", "output", "logs", "completed"]},
        },
    },
    "required": ["input"],
    "additionalProperties": False,
}
BODY_OF_VERSION = BODY | {
    "properties": BODY["properties"]
    | {"version": {"type": "string", "pattern": "^[a-z0-9.-]+/[a-z0-9.-]+:[0-9a-f]{64}$"}},
    "required": ["version", "input"],
}


def job(model: str = "bfl/flux-schnell", **inputs: Any) -> Job:
    return Job(ATTEMPT, "replicate", CATALOG[model], inputs, opened_at=OPENED, timeout_s=120.0)


def sent(request: Request) -> dict[str, Any]:
    assert request.body is not None
    body: dict[str, Any] = json.loads(request.body)
    return body


def inputs_of(provider: Replicate, asked: Job) -> dict[str, Any]:
    found: dict[str, Any] = sent(provider.build_submit(asked))["input"]
    return found


# ------------------------------------------------------------------------------- requests, for every model


def requests(model: Model) -> Iterator[Job]:
    """What customers may send, and every size in every ratio, since some models want both in one parameter."""
    yield from jobs("replicate", model)
    least = next(jobs("replicate", model))
    for ratio in model.schema.ratios:
        for resolution in model.schema.resolutions or ():
            sizes = {"generation_ratio": ratio, "generation_resolution": resolution}
            inputs = {
                **least.inputs,
                **{name: value for name, value in sizes.items() if name in model.fields},
            }
            if admits(model.providers["replicate"], inputs, model):
                yield replace(least, inputs=inputs)


def test_the_catalog_names_all_of_its_models() -> None:
    assert len(MODELS) == 136


@pytest.mark.parametrize("name", MODELS)
def test_every_request_of_a_model_is_as_documented(name: str) -> None:
    model = CATALOG[name]
    offer = model.providers["replicate"]
    targets = {target.removesuffix("[]") for target in offer.params.values()} - {"width,height"}
    extra = {"width", "height", "sequential_image_generation"} | set(offer.fixed_params)
    for asked_job in requests(model):
        asked = asked_job.inputs
        request = PROVIDER.build_submit(replace(asked_job, timeout_s=900.0))
        body = sent(request)
        owner_and_name, _, version = offer.model.partition(":")
        if version:
            assert request.url == f"{BASE}/predictions"
            jsonschema_rs.validate(BODY_OF_VERSION, body)
        else:
            assert request.url == f"{BASE}/models/{owner_and_name}/predictions"
            jsonschema_rs.validate(BODY, body)
        params = body["input"]
        assert set(params) <= targets | extra, asked
        assert "generation_" not in " ".join(params)
        for field, target in offer.params.items():
            if field in asked and target != "width,height":
                assert target.removesuffix("[]") in params, (field, asked)
                assert isinstance(params[target.removesuffix("[]")], list) is target.endswith("[]"), (
                    field,
                    asked,
                )
        if owner_and_name in INPUTS and owner_and_name != "openai/gpt-image-1":
            errors = list(jsonschema_rs.Draft202012Validator(INPUTS[owner_and_name]).iter_errors(params))
            assert errors == [], (asked, params)
        else:
            assert all(isinstance(value, str | int | float | bool | list | dict) for value in params.values())


@pytest.mark.parametrize("name", MODELS)
def test_no_file_of_a_list_is_dropped(name: str) -> None:
    """What takes one file gets one: a request with more goes to other providers."""
    model = CATALOG[name]
    offer = model.providers["replicate"]
    for field, target in offer.params.items():
        spec = model.fields.get(field)
        if spec is not None and spec.type == "url-array" and not target.endswith("[]"):
            limit = offer.limits.get(field) if offer.partial else None
            assert spec.max_items == 1 or limit == 1, field


def test_a_submit_says_where_to_call_back_and_when_to_stop() -> None:
    asked = job(generation_prompt="a", generation_ratio="16:9", generation_output_number=1, generation_seed=7)
    request = PROVIDER.build_submit(
        Job(
            ATTEMPT,
            "replicate",
            asked.model,
            asked.inputs,
            timeout_s=90.4,
            callback_url="https://cp.example/h/1",
        )
    )
    assert request.method == "POST"
    assert request.url == f"{BASE}/models/black-forest-labs/flux-schnell/predictions"
    assert request.headers == {
        "authorization": "Bearer r8_key",
        "content-type": "application/json",
        "cancel-after": "90s",
    }
    assert sent(request) == {
        "input": {"prompt": "a", "aspect_ratio": "16:9", "num_outputs": 1, "seed": 7},
        "webhook": "https://cp.example/h/1",
        "webhook_events_filter": ["completed"],
    }


def test_without_a_callback_or_a_deadline_neither_is_named() -> None:
    request = PROVIDER.build_submit(Job(ATTEMPT, "replicate", CATALOG["bfl/flux-schnell"], {}))
    assert "cancel-after" not in request.headers
    assert set(sent(request)) == {"input"}


def test_the_shortest_deadline_is_five_seconds() -> None:
    request = PROVIDER.build_submit(Job(ATTEMPT, "replicate", CATALOG["bfl/flux-schnell"], {}, timeout_s=0.2))
    assert request.headers["cancel-after"] == "5s"


def test_our_seed_is_sent_where_the_customer_left_it_to_chance() -> None:
    assert inputs_of(PROVIDER, job())["seed"] == OWN_SEED
    assert inputs_of(PROVIDER, job("bytedance/seedance-1-pro", generation_seed=-1))["seed"] == OWN_SEED
    assert inputs_of(PROVIDER, job(generation_seed=0))["seed"] == 0
    assert "seed" not in inputs_of(PROVIDER, job("kling/v2.6", generation_prompt="a"))


@pytest.mark.parametrize(
    ("model", "inputs", "params"),
    [
        ("gpt/image-1.5", {"generation_moderation": False}, {"moderation": "auto"}),
        ("gpt/image-1.5", {"generation_output_format": "jpg"}, {"output_format": "jpeg"}),
        ("bfl/flux-2-pro", {"generation_moderation": True}, {"safety_tolerance": 1}),
        ("bfl/flux-2-pro", {"generation_moderation": False}, {"safety_tolerance": 2}),
        ("ideogram/v3-turbo", {"generation_prompt_extend": False}, {"magic_prompt_option": "Off"}),
        (
            "sora/2",
            {"generation_ratio": "9:16", "generation_duration": 8},
            {"aspect_ratio": "portrait", "seconds": 8},
        ),
        ("wan/2.5-t2v", {"generation_ratio": "9:16", "generation_resolution": "480p"}, {"size": "480*832"}),
        (
            "wan/2.5-t2v",
            {"generation_ratio": "16:9", "generation_resolution": "1080p"},
            {"size": "1920*1080"},
        ),
        ("z/image-turbo", {"generation_ratio": "16:9"}, {"width": 1280, "height": 720}),
        ("stability/sdxl", {"generation_ratio": "3:4"}, {"width": 880, "height": 1184}),
        ("bytedance/seedream-4", {"generation_output_number": 1}, {"max_images": 1}),
        (
            "bytedance/seedream-4",
            {"generation_output_number": 3, "generation_sequential_image_generation": "disabled"},
            {"max_images": 3, "sequential_image_generation": "auto"},
        ),
        ("kling/v3-pro", {}, {"mode": "pro"}),
        (
            "qwen/image-edit-plus",
            {"generation_input_file": ["https://a.example/1"]},
            {"image": ["https://a.example/1"]},
        ),
        (
            "qwen/image-edit",
            {"generation_input_file": ["https://a.example/1"]},
            {"image": "https://a.example/1"},
        ),
    ],
)
def test_values_are_spelled_as_the_model_wants_them(
    model: str, inputs: dict[str, Any], params: dict[str, Any]
) -> None:
    found = inputs_of(PROVIDER, job(model, **inputs))
    found.pop("seed", None)
    assert found == params


def test_the_operators_openai_key_goes_to_openai_models_only() -> None:
    given = Replicate(ProviderSettings(api_key="r8_key", options={"openai_api_key": "sk-own"}))
    assert inputs_of(given, job("gpt/image-1"))["openai_api_key"] == "sk-own"
    assert "openai_api_key" not in inputs_of(given, job("bfl/flux-schnell"))
    assert "openai_api_key" not in inputs_of(PROVIDER, job("gpt/image-1"))


# ------------------------------------------------------------------------------- answers to the submit


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {"content-type": "application/json", **headers}, data)


def prediction(status: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": "8r2mexample",
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "input": {"prompt": "a tiny astronaut", "seed": 7},
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "status": status,
        "created_at": "2026-11-23T02:15:00.001Z",
        "urls": {"get": f"{BASE}/predictions/8r2mexample"},
        **changes,
    }


URL = "https://replicate.delivery/xezq/abc/out-0.webp"


def test_a_new_prediction_is_accepted() -> None:
    assert PROVIDER.read_submit(job(), answer(201, prediction("starting"))) == Accepted(
        "8r2mexample", poll_after_s=0.5
    )
    video = job("wan/2.6-t2v")
    assert PROVIDER.read_submit(video, answer(202, prediction("processing"))) == Accepted(
        "8r2mexample", poll_after_s=3.0
    )


def test_output_before_the_end_counts_only_where_it_was_waited_for() -> None:
    early = prediction("processing", output=["data:image/png;base64,AA=="])
    waited = PROVIDER.read_submit(job(), answer(201, early, **{"preference-applied": "wait=10"}))
    assert waited == Finished([Output(url="data:image/png;base64,AA==")], upstream_id="8r2mexample")
    assert PROVIDER.read_submit(job(), answer(201, early)) == Accepted("8r2mexample", poll_after_s=0.5)
    expired = answer(202, prediction("processing"), **{"preference-applied": "wait"})
    assert PROVIDER.read_submit(job(), expired) == Accepted("8r2mexample", poll_after_s=0.5)


def test_a_prediction_may_have_ended_by_its_first_answer() -> None:
    done = prediction("succeeded", output=[URL], metrics={"predict_time": 0.84})
    assert PROVIDER.read_submit(job(), answer(201, done)) == Finished(
        [Output(url=URL)], predict_seconds=0.84, upstream_id="8r2mexample"
    )
    failed = PROVIDER.read_submit(job(), answer(201, prediction("failed", error="it broke")))
    assert failed == Refused(Failure.FAILED, "it broke")


@pytest.mark.parametrize(
    "body", [b"<html>hello</html>", b"", b"[]", b'{"id": 7}', b'{"id": ""}', b'{"id": "\\u0000"}']
)
def test_a_submit_that_was_taken_without_an_id_is_an_unknown_outcome(body: bytes) -> None:
    read = PROVIDER.read_submit(job(), answer(201, body))
    assert isinstance(read, Refused)
    assert read.failure is Failure.OUTCOME_UNKNOWN


REFUSALS = [
    (
        401,
        {
            "title": "Unauthenticated",
            "detail": "You did not pass a valid authentication token",
            "status": 401,
        },
        Failure.REFUSED_AUTH,
        None,
    ),
    (
        402,
        {
            "title": "Insufficient credit",
            "detail": "You have insufficient credit to run this model.",
            "status": 402,
        },
        Failure.REFUSED_FUNDS,
        None,
    ),
    (402, {"detail": "You've hit your monthly spend limit."}, Failure.REFUSED_FUNDS, None),
    (429, {"detail": "You have insufficient credit to run this model."}, Failure.REFUSED_FUNDS, None),
    (
        429,
        {"detail": "Request was throttled. Your rate limit resets in ~30s."},
        Failure.REFUSED_BUSY,
        "BSE4003",
    ),
    (
        404,
        {"detail": "The requested resource could not be found.", "status": 404},
        Failure.REFUSED_INPUT,
        None,
    ),
    (
        422,
        {
            "detail": "- input: prompt is required\n",
            "status": 422,
            "title": "Input validation failed",
            "invalid_fields": [{"type": "required", "field": "input", "description": "prompt is required"}],
        },
        Failure.REFUSED_INPUT,
        None,
    ),
    (
        422,
        {
            "detail": '- input.moderation: moderation must be one of the following: "auto", "low"\n',
            "status": 422,
            "title": "Input validation failed",
        },
        Failure.REFUSED_INPUT,
        "BSE2008",
    ),
    (
        422,
        {"detail": "- input: Unexpected field 'moderation'\n", "title": "Input validation failed"},
        Failure.REFUSED_INPUT,
        None,
    ),
    (
        422,
        {"title": "Invalid version or not permitted", "detail": "The specified version does not exist."},
        Failure.REFUSED_INPUT,
        None,
    ),
    (
        422,
        {"title": "Unprocessable", "detail": "The prompt was flagged as sensitive."},
        Failure.REFUSED_POLICY,
        None,
    ),
    (500, {"detail": "Internal server error"}, Failure.FAILED, None),
    (502, b"<html>bad gateway</html>", Failure.FAILED, None),
    (503, b"", Failure.REFUSED_BUSY, None),
    (504, b"<html>gateway time-out</html>", Failure.OUTCOME_UNKNOWN, None),
    (524, b"", Failure.OUTCOME_UNKNOWN, None),
]


@pytest.mark.parametrize(("status", "body", "failure", "code"), REFUSALS)
def test_each_refusal_has_its_class(status: int, body: Any, failure: Failure, code: str | None) -> None:
    read = PROVIDER.read_submit(job(), answer(status, body))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)
    assert read.message.startswith(f"HTTP {status}")


def test_a_throttled_submit_says_when_to_come_back() -> None:
    body = {"detail": "Request was throttled. Your rate limit resets in ~3s."}
    told = PROVIDER.read_submit(job(), answer(429, body))
    named = PROVIDER.read_submit(job(), answer(429, body, **{"retry-after": "7"}))
    assert isinstance(told, Refused)
    assert isinstance(named, Refused)
    assert (told.retry_after_s, named.retry_after_s) == (3.0, 7.0)


# ------------------------------------------------------------------------------- polling


def poll(status: int, body: Any) -> Running | Finished | Refused:
    return PROVIDER.read_poll(job(), TICKET, answer(status, body))


def test_a_poll_asks_for_the_prediction_by_its_id() -> None:
    request = PROVIDER.build_poll(job(), Accepted("a/b?c"))
    assert (request.method, request.url) == ("GET", f"{BASE}/predictions/a%2Fb%3Fc")
    assert request.headers == {"authorization": "Bearer r8_key"}


@pytest.mark.parametrize("status", ["starting", "processing", "queued", "", None, 7])
def test_what_has_not_ended_is_running(status: Any) -> None:
    assert poll(200, prediction(status, output=["https://replicate.delivery/part.png"])) == Running()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_poll_that_is_refused_ends_nothing(status: int) -> None:
    assert poll(status, {"detail": "no"}) == Running()


def test_a_lost_prediction_failed() -> None:
    read = poll(404, {"detail": "The requested resource could not be found."})
    assert isinstance(read, Refused)
    assert read.failure is Failure.FAILED


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        (URL, [URL]),
        ([URL, f"{URL}2"], [URL, f"{URL}2"]),
        ({"video": URL, "frames": [f"{URL}2", {"mask": f"{URL}3"}]}, [URL, f"{URL}2", f"{URL}3"]),
        (["a caption", URL, None, 3], [URL]),
        ("a caption", []),
        (None, []),
        ({}, []),
        ([f"{URL}{n}" for n in range(99)], [f"{URL}{n}" for n in range(32)]),
    ],
)
def test_every_shape_of_output_gives_its_files(output: Any, urls: list[str]) -> None:
    read = poll(200, prediction("succeeded", output=output, metrics={"predict_time": "1.5"}))
    assert read == Finished([Output(url=url) for url in urls], predict_seconds=1.5)


ENDS = [
    ("NSFW content detected. Try running it again, or try a different prompt.", Failure.REFUSED_POLICY, None),
    (
        "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
        Failure.REFUSED_POLICY,
        None,
    ),
    ("Your request was rejected by the safety system.", Failure.REFUSED_POLICY, None),
    ("The video was moderated (content policy).", Failure.REFUSED_POLICY, None),
    (
        "Input validation error: safety_tolerance must be 2 or less when images are given",
        Failure.REFUSED_INPUT,
        None,
    ),
    ("The input was invalid. (E006)", Failure.REFUSED_INPUT, None),
    (
        "Input validation error: failed to download https://files.example/a.png",
        Failure.REFUSED_INPUT,
        "BSE2009",
    ),
    ("cannot identify image file <_io.BytesIO object>", Failure.REFUSED_INPUT, "BSE2004"),
    ("Failed to load image", Failure.REFUSED_INPUT, "BSE2005"),
    (
        "Service is currently unavailable due to high demand. Please try again later. (E003)",
        Failure.REFUSED_BUSY,
        None,
    ),
    ("Timed out starting the prediction (E6716)", Failure.REFUSED_BUSY, None),
    ("Prediction interrupted; please retry (code: PA)", Failure.FAILED, None),
    ("CUDA out of memory (E1001)", Failure.FAILED, None),
    ("", Failure.FAILED, None),
]


@pytest.mark.parametrize(("error", "failure", "code"), ENDS)
def test_each_failed_end_has_its_class(error: str, failure: Failure, code: str | None) -> None:
    read = poll(200, prediction("failed", error=error))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)
    assert read.message == (error or "the job failed")


@pytest.mark.parametrize(
    ("status", "times", "failure"),
    [
        ("aborted", {}, Failure.TIMED_OUT),
        ("canceled", {}, Failure.FAILED),
        (
            "canceled",
            {"deadline": "2026-01-01T00:02:00Z", "completed_at": "2026-01-01T00:01:00Z"},
            Failure.FAILED,
        ),
        (
            "canceled",
            {"deadline": "2026-01-01T00:02:00Z", "completed_at": "2026-01-01T00:02:00.4Z"},
            Failure.TIMED_OUT,
        ),
        ("canceled", {"deadline": "soon", "completed_at": "2026-01-01T00:01:00Z"}, Failure.FAILED),
        (
            "canceled",
            {"deadline": "2026-01-01T00:02:00Z", "completed_at": "2026-01-01T00:02:00"},
            Failure.FAILED,
        ),
    ],
)
def test_a_stopped_prediction_timed_out_if_its_deadline_stopped_it(
    status: str, times: dict[str, str], failure: Failure
) -> None:
    read = poll(200, prediction(status, **times))
    assert isinstance(read, Refused)
    assert read.failure is failure


# ------------------------------------------------------------------------------- beside the job


def test_only_a_stopped_prediction_confirms_a_cancel() -> None:
    request = PROVIDER.build_cancel(job(), TICKET)
    assert request is not None
    assert (request.method, request.url, request.body) == (
        "POST",
        f"{BASE}/predictions/8r2mexample/cancel",
        None,
    )
    assert PROVIDER.read_cancel(job(), answer(200, prediction("canceled")))
    assert PROVIDER.read_cancel(job(), answer(200, prediction("aborted")))
    assert not PROVIDER.read_cancel(job(), answer(200, prediction("succeeded", output=[URL])))
    assert not PROVIDER.read_cancel(job(), answer(404, prediction("canceled")))
    assert not PROVIDER.read_cancel(job(), answer(200, b"<html>"))


def test_reconciliation_looks_around_the_opening_of_a_marked_attempt() -> None:
    request = PROVIDER.build_reconcile(job())
    assert request is not None
    url = urlsplit(request.url)
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{BASE}/predictions"
    times = {name: datetime.fromisoformat(value) for name, [value] in parse_qs(url.query).items()}
    assert times["created_after"] < OPENED < times["created_before"] < OPENED + timedelta(minutes=10)


def test_what_carries_no_mark_cannot_be_found() -> None:
    assert PROVIDER.build_reconcile(job(generation_seed=7)) is None
    assert PROVIDER.build_reconcile(job("kling/v2.6")) is None
    assert PROVIDER.build_reconcile(Job(ATTEMPT, "replicate", CATALOG["bfl/flux-schnell"], {})) is None
    assert PROVIDER.read_reconcile(job(generation_seed=7), answer(200, {"results": []})) == Unclear()
    assert PROVIDER.read_reconcile(job("kling/v2.6"), answer(200, {"results": []})) == Unclear()


def listed(upstream_id: str, **changes: Any) -> dict[str, Any]:
    return prediction("processing", id=upstream_id, input={"prompt": "a", "seed": OWN_SEED}) | changes


@pytest.mark.parametrize(
    ("results", "found"),
    [
        ([listed("one"), prediction("starting")], "one"),
        ([listed("one", status="succeeded")], "one"),
        ([listed("one", model=None)], "one"),
        ([listed("one"), listed("one")], "one"),
        ([], None),
        ([listed("one"), listed("two")], None),
        ([listed("one", model="other/model")], None),
        ([listed("one", input={"prompt": "another", "seed": OWN_SEED})], None),
        ([listed("one", input=None)], None),
        ([listed("")], None),
        ([None, 7, "x"], None),
        (None, None),
    ],
)
def test_a_prediction_is_found_by_our_seed_if_it_is_the_only_one(results: Any, found: str | None) -> None:
    read = PROVIDER.read_reconcile(job(generation_prompt="a"), answer(200, {"results": results}))
    assert read == (Accepted(found, poll_after_s=0.0) if found else Unclear())


def test_a_model_of_one_version_is_found_by_its_name() -> None:
    asked = job("stability/sdxl", generation_prompt="a")
    read = PROVIDER.read_reconcile(
        asked, answer(200, {"results": [listed("one", model="stability-ai/sdxl")]})
    )
    assert read == Accepted("one", poll_after_s=0.0)


def test_callbacks_are_verified_by_the_accounts_secret() -> None:
    """The vector of the Standard Webhooks specification."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    callback = Callback(headers, b'{"test": 2432232314}', 1614265330.0)
    keys = PROVIDER.read_keys(answer(200, {"key": secret}))
    asked = PROVIDER.build_keys()
    assert asked is not None
    assert asked.url == f"{BASE}/webhooks/default/secret"
    assert PROVIDER.verify_callback(callback, keys)
    assert not PROVIDER.verify_callback(callback, ())
    assert not PROVIDER.verify_callback(Callback(headers, b'{"test": 2432232315}', 1614265330.0), keys)
    configured = Replicate(ProviderSettings(api_key="k", webhook_secret=secret))
    assert configured.build_keys() is None
    assert configured.verify_callback(callback, ())


def test_no_key_is_read_from_what_is_no_answer() -> None:
    assert PROVIDER.read_keys(answer(401, {"key": "whsec_AAAA"})) == ()
    assert PROVIDER.read_keys(answer(200, {"key": None})) == ()
    assert PROVIDER.read_keys(answer(200, b"<html>")) == ()


def test_the_check_names_the_account() -> None:
    asked = PROVIDER.build_check()
    assert asked is not None
    assert asked.url == f"{BASE}/account"
    assert PROVIDER.read_check(answer(200, {"username": "acme"})) == Check(True, "account acme")
    assert not PROVIDER.read_check(answer(200, b"<html>a portal</html>")).ok
    refused = PROVIDER.read_check(answer(401, {"detail": "You did not pass a valid authentication token"}))
    assert refused == Check(False, "HTTP 401: You did not pass a valid authentication token")
