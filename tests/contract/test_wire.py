"""The wire form of generations: exact names, nulls and omissions."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from babysea_server.generations.wire import (
    GenerationAccepted,
    GenerationData,
    GenerationStatus,
    GenerationView,
    generation_payload,
)
from babysea_server.kit.json import dumps

CREATED = datetime(2026, 4, 28, 12, tzinfo=UTC)
PENDING = GenerationView(
    account_id=UUID(int=1),
    generation_id=UUID(int=2),
    model_identifier="bfl/flux-schnell",
    media="image",
    status="pending",
    provider_order=("replicate", "fal"),
    provider_used=None,
    prediction_id="p1",
    inputs={"generation_prompt": "A lighthouse", "generation_seed": 7},
    output_files=None,
    created_at=CREATED,
    started_at=None,
    completed_at=None,
    predict_seconds=None,
)
SUCCEEDED = msgspec.structs.replace(
    PENDING,
    status="succeeded",
    provider_used="fal",
    output_files=("https://files.example/0.png",),
    started_at=CREATED + timedelta(milliseconds=12),
    completed_at=CREATED + timedelta(seconds=2.4804),
    predict_seconds=1.91049,
)


def on_the_wire(view: GenerationView) -> dict[str, Any]:
    document = dumps(generation_payload(view))
    msgspec.json.decode(document, type=GenerationData)
    decoded: dict[str, Any] = msgspec.json.decode(document)
    return decoded


def test_a_pending_image_has_nulls_and_its_inputs_at_the_top() -> None:
    assert on_the_wire(PENDING) == {
        "account_id": "00000000-0000-0000-0000-000000000001",
        "generation_id": "00000000-0000-0000-0000-000000000002",
        "model_identifier": "bfl/flux-schnell",
        "generation_provider_order": ["replicate", "fal"],
        "generation_provider_used": None,
        "generation_prediction_id": "p1",
        "generation_status": "pending",
        "generation_output_file": None,
        "generation_created_at": "2026-04-28T12:00:00.000Z",
        "generation_started_at": None,
        "generation_completed_at": None,
        "generation_metrics_total_time": None,
        "generation_metrics_predict_time": None,
        "generation_prompt": "A lighthouse",
        "generation_seed": 7,
    }


def test_a_succeeded_image_has_files_and_times_in_seconds() -> None:
    payload = on_the_wire(SUCCEEDED)
    assert payload["generation_output_file"] == ["https://files.example/0.png"]
    assert payload["generation_provider_used"] == "fal"
    assert payload["generation_metrics_total_time"] == 2.48
    assert payload["generation_metrics_predict_time"] == 1.91


@pytest.mark.parametrize(("status", "used"), [("processing", None), ("canceled", "fal"), ("failed", "fal")])
def test_the_provider_is_told_only_when_final(status: GenerationStatus, used: str | None) -> None:
    payload = on_the_wire(msgspec.structs.replace(PENDING, status=status, provider_used="fal"))
    assert payload["generation_provider_used"] == used


def test_only_a_failed_generation_has_an_error() -> None:
    failed = msgspec.structs.replace(PENDING, status="failed", error="It was refused.", error_code="BSE2006")
    payload = on_the_wire(failed)
    assert (payload["generation_error"], payload["generation_error_code"]) == ("It was refused.", "BSE2006")
    assert "generation_error" not in on_the_wire(msgspec.structs.replace(failed, status="canceled"))


def test_removed_files_are_told_only_then() -> None:
    assert "generation_removed" not in on_the_wire(SUCCEEDED)
    assert on_the_wire(msgspec.structs.replace(SUCCEEDED, removed=True))["generation_removed"] is True


@pytest.mark.parametrize(("audio", "mode"), [(True, "audio"), (False, "noaudio"), (None, "noaudio")])
def test_a_video_tells_its_audio_mode(audio: bool | None, mode: str) -> None:
    inputs: dict[str, Any] = {"generation_duration": 5, "generation_resolution": "720p"}
    if audio is not None:
        inputs["generation_generate_audio"] = audio
    payload = on_the_wire(msgspec.structs.replace(PENDING, media="video", inputs=inputs))
    assert payload["generation_duration"] == 5
    assert payload["generation_resolution"] == "720p"
    assert payload["generation_generate_audio"] is bool(audio)
    assert payload["generation_audio_mode"] == mode


def test_an_image_has_no_members_of_a_video() -> None:
    assert not {"generation_generate_audio", "generation_audio_mode"} & on_the_wire(PENDING).keys()


def test_inputs_never_replace_our_own_members() -> None:
    inputs = {"generation_status": "succeeded", "account_id": "x"}
    payload = on_the_wire(msgspec.structs.replace(PENDING, inputs=inputs))
    assert (payload["generation_status"], payload["account_id"]) == ("pending", str(UUID(int=1)))


def test_accepted_is_told_in_the_contracts_order() -> None:
    accepted = GenerationAccepted(
        model_identifier="a/b",
        generation_provider_order=["fal"],
        generation_prediction_id="p1",
        generation_id=UUID(int=2),
        generation_initialized=True,
    )
    assert dumps(accepted) == (
        b'{"model_identifier":"a/b","generation_provider_order":["fal"],"generation_prediction_id":"p1",'
        b'"generation_id":"00000000-0000-0000-0000-000000000002","generation_initialized":true}'
    )
