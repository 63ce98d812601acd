"""What tools take and give. The JSON schemas that assistants read are made from these."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

TIMEOUT_S = 50.0
TIMEOUT_MAX_S = 900.0


class Arguments(BaseModel):
    """Arguments are taken as they are named, and no others."""

    model_config = ConfigDict(extra="forbid")


class NoArguments(Arguments):
    """A tool without arguments."""


def _decoded(value: Any) -> Any:
    """Some assistants send an object as the JSON text of it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


ModelId = Annotated[str, Field(description="A model's identifier, such as `sandbox/image`; see list_models.")]
GenerationId = Annotated[str, Field(description="The id that generate or list_generations gave.")]


class ListModels(Arguments):
    search: Annotated[str, Field(description="Words that have to occur in the identifier.")] = ""
    media: Annotated[Literal["image", "video"] | None, Field(description="Only models of this kind.")] = None


class GetModel(Arguments):
    model: ModelId


class EstimateCost(Arguments):
    model: ModelId
    count: Annotated[int, Field(ge=1, le=100, description="How many pictures or clips.")] = 1
    duration: Annotated[int | None, Field(description="Seconds of video.")] = None
    resolution: Annotated[str | None, Field(description="One of the model's resolutions.")] = None
    audio: Annotated[bool | None, Field(description="Whether a video has sound.")] = None


class Generate(Arguments):
    model: ModelId
    prompt: Annotated[str | None, Field(description="What to show.")] = None
    inputs: Annotated[
        dict[str, Any],
        BeforeValidator(_decoded),
        Field(
            description='The model\'s other inputs as get_model names them, such as {"ratio": "16:9", "seed": 7}.'
        ),
    ] = Field(default_factory=dict)
    wait: Annotated[bool, Field(description="Wait for the result; else read it later by get_generation.")] = (
        True
    )
    timeout_s: Annotated[
        float,
        Field(
            gt=0,
            le=TIMEOUT_MAX_S,
            description="How long to wait; the generation goes on after it. Many assistants give up after 60.",
        ),
    ] = TIMEOUT_S


class GetGeneration(Arguments):
    generation_id: GenerationId
    pictures: Annotated[bool, Field(description="Return the pictures themselves, not only links.")] = True


class ListGenerations(Arguments):
    limit: Annotated[int, Field(ge=1, le=100, description="How many.")] = 20
    offset: Annotated[int, Field(ge=0, description="How many of the newest to pass over.")] = 0


class CancelGeneration(Arguments):
    generation_id: GenerationId


class Result(BaseModel):
    """What a tool gives; members that say nothing are left out."""


class ModelLine(Result):
    model: str
    media: str
    price: Annotated[
        float | dict[str, float], Field(description="Credits per image, or per second of video; 1 is 1 USD.")
    ]


class Models(Result):
    total: Annotated[int, Field(description="How many fit; the list holds the first of them.")]
    models: list[ModelLine]


class Input(Result):
    name: str
    required: bool = False
    values: Annotated[list[Any] | None, Field(description="All that it can be.")] = None
    description: str | None = None


class ModelDetails(ModelLine):
    providers: list[str]
    inputs: list[Input]
    example: Annotated[dict[str, Any], Field(description="Arguments of generate.")]


class Cost(Result):
    model: str
    count: int
    cost: Annotated[float, Field(description="Credits in all; 1 credit is 1 USD.")]
    cost_each: float
    balance: Annotated[float, Field(description="The account's credits.")]
    affordable: bool
    seconds: Annotated[int | None, Field(description="The length that was priced.")] = None
    resolution: str | None = None
    limit_left: Annotated[float | None, Field(description="What this server may still reserve.")] = None


class GenerationView(Result):
    generation_id: str
    model: str
    status: Annotated[str, Field(description="pending, processing, succeeded, failed or canceled.")]
    prompt: str | None = None
    provider: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    links: Annotated[
        list[str] | None, Field(description="Signed; get_generation makes new ones after they expire.")
    ] = None
    error: str | None = None
    error_code: str | None = None
    note: str | None = None


class Generated(GenerationView):
    cost: Annotated[float, Field(description="Credits that were reserved.")]
    charged: Annotated[float | None, Field(description="Credits that were charged, once that is known.")] = (
        None
    )
    limit_left: Annotated[float | None, Field(description="What this server may still reserve.")] = None


class Generations(Result):
    total: int
    offset: int
    generations: list[GenerationView]


class Canceled(Result):
    generation_id: str
    status: str
    credits_refunded: float | None = None


class Balance(Result):
    balance: Annotated[float, Field(description="The account's credits; 1 credit is 1 USD.")]
    plan: str | None = None
    limit: Annotated[float | None, Field(description="What this server may reserve in all.")] = None
    limit_left: Annotated[float | None, Field(description="What of that is left.")] = None
