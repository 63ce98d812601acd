"""What the generation operations send: accepting, reading, canceling and deleting a generation."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from babysea_server.kit.json import moment
from babysea_server.kit.wire import Moment

GenerationStatus = Literal["pending", "processing", "succeeded", "failed", "canceled"]

Seconds = Annotated[float, Meta(description="Seconds.", ge=0)]
ProviderOrder = Annotated[list[str], Meta(description="Provider ids, first to be tried first.")]
PredictionId = Annotated[str, Meta(description="Our id of the first execution attempt; opaque, stable.")]


class GenerationAccepted(Struct, frozen=True, kw_only=True):
    """A request that is durably accepted and whose credits are reserved."""

    model_identifier: str
    generation_provider_order: ProviderOrder
    generation_prediction_id: PredictionId
    generation_id: UUID
    generation_initialized: Annotated[bool, Meta(extra_json_schema={"enum": [True]})]


class GenerationCanceled(Struct, frozen=True, kw_only=True):
    """A request whose generation was canceled before the answer was sent, also on a replay."""

    generation_id: UUID
    generation_status: Literal["canceled"]


class CancelData(Struct, frozen=True, kw_only=True):
    """A generation that this call canceled."""

    generation_id: UUID
    generation_status: Literal["canceled"]
    provider_cancel_sent: Annotated[bool, Meta(description="Whether a provider was asked to stop.")]
    credits_refunded: Annotated[float, Meta(description="Credits given back: the whole reserve.", ge=0)]


class DeleteData(Struct, frozen=True, kw_only=True):
    """A generation that this call deleted."""

    generation_id: UUID
    files_deleted: Annotated[int, Meta(description="Output files removed from storage.", ge=0)]


class GenerationData(Struct, frozen=True, kw_only=True):
    """One generation. The model's own `generation_*` inputs stand beside the named members."""

    account_id: UUID
    generation_id: UUID
    model_identifier: str
    generation_provider_order: ProviderOrder
    generation_provider_used: Annotated[str | None, Meta(description="Null until the generation is final.")]
    generation_prediction_id: str | None
    generation_status: GenerationStatus
    generation_output_file: Annotated[
        list[str] | None,
        Meta(description="Signed URLs, made when read; null until succeeded, and after removal."),
    ]
    generation_created_at: Moment
    generation_started_at: Moment | None
    generation_completed_at: Moment | None
    generation_metrics_total_time: Seconds | None
    generation_metrics_predict_time: Seconds | None
    generation_prompt: str | UnsetType = UNSET
    generation_ratio: str | UnsetType = UNSET
    generation_output_format: str | UnsetType = UNSET
    generation_output_number: int | UnsetType = UNSET
    generation_input_file: list[str] | UnsetType = UNSET
    generation_input_file_last_content: str | UnsetType = UNSET
    generation_duration: Annotated[int | UnsetType, Meta(description="Seconds; video only.")] = UNSET
    generation_resolution: str | UnsetType = UNSET
    generation_generate_audio: Annotated[bool | UnsetType, Meta(description="Video only.")] = UNSET
    generation_audio_mode: Annotated[
        Literal["audio", "noaudio"] | UnsetType, Meta(description="Video only.")
    ] = UNSET
    generation_error: Annotated[str | UnsetType, Meta(description="Only when failed.")] = UNSET
    generation_error_code: Annotated[str | UnsetType, Meta(description="Only when failed.")] = UNSET
    generation_removed: Annotated[
        bool | UnsetType, Meta(description="Only after the output files were removed.")
    ] = UNSET


class GenerationListData(Struct, frozen=True, kw_only=True):
    """A page of generations, newest first."""

    generations: list[GenerationData]


class GenerationView(Struct, frozen=True, kw_only=True):
    """The facts of one generation from which its wire form is made.

    `inputs` are the accepted `generation_*` inputs as stored, without the provider order.
    `output_files` are URLs signed just now; None until succeeded, and after their removal. `predict_seconds` is
    the time the provider worked.
    """

    account_id: UUID
    generation_id: UUID
    model_identifier: str
    media: Literal["image", "video"]
    status: GenerationStatus
    provider_order: Sequence[str]
    provider_used: str | None
    prediction_id: str | None
    inputs: Mapping[str, Any]
    output_files: Sequence[str] | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    predict_seconds: float | None
    error: str | None = None
    error_code: str | None = None
    removed: bool = False


def generation_payload(view: GenerationView) -> dict[str, Any]:
    """The JSON members of one generation, in the contract's order; a `GenerationData` in shape.

    Inputs are merged at the top level and never replace a member of our own. A video always tells
    its audio mode; the members for failure and removal appear only then.
    """
    final = view.status not in ("pending", "processing")
    payload: dict[str, Any] = {
        "account_id": view.account_id,
        "generation_id": view.generation_id,
        "model_identifier": view.model_identifier,
        "generation_provider_order": list(view.provider_order),
        "generation_provider_used": view.provider_used if final else None,
        "generation_prediction_id": view.prediction_id,
        "generation_status": view.status,
        "generation_output_file": None if view.output_files is None else list(view.output_files),
        "generation_created_at": moment(view.created_at),
        "generation_started_at": moment(view.started_at),
        "generation_completed_at": moment(view.completed_at),
        "generation_metrics_total_time": _seconds_between(view.created_at, view.completed_at),
        "generation_metrics_predict_time": (
            None if view.predict_seconds is None else round(view.predict_seconds, 3)
        ),
    }
    if view.media == "video":
        audio = bool(view.inputs.get("generation_generate_audio", False))
        payload["generation_generate_audio"] = audio
        payload["generation_audio_mode"] = "audio" if audio else "noaudio"
    if view.status == "failed":
        payload["generation_error"] = view.error or "The generation failed."
        payload["generation_error_code"] = view.error_code or "BSE5001"
    if view.removed:
        payload["generation_removed"] = True
    for name, value in view.inputs.items():
        payload.setdefault(name, value)
    return payload


def _seconds_between(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else round(max(0.0, (end - start).total_seconds()), 3)
