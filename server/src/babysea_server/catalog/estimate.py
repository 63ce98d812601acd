"""What a generation would cost, from the few parameters of the estimate operation."""

from collections.abc import Mapping
from typing import Any

from babysea_server.catalog import refusals
from babysea_server.catalog.limits import matches
from babysea_server.catalog.pricing import quote
from babysea_server.catalog.types import Model
from babysea_server.catalog.wire import EstimateData
from babysea_server.errors import ApiError, invalid_input
from babysea_server.kit import money

_MAX_COUNT = 100


def estimate(model: Model, query: Mapping[str, Any], balance_micro: int) -> EstimateData:
    """Price one generation, `count` of them, and hold that against a balance in micro-credits.

    `query` may hold `count` (clamped to 1..100), `duration` in seconds (default: the model's smallest; where
    the length follows the source, its maximum), `resolution` (default: the first) and `audio`.

    Raises:
        ApiError: BSE2001 for a duration, resolution or sound that the model does not make.
    """
    inputs = _inputs(model, query)
    price = quote(model, inputs)
    count = min(max(query.get("count", 1), 1), _MAX_COUNT)
    total = price.cost_micro * count
    data = EstimateData(
        model_identifier=model.identifier,
        model_type=model.media,
        assets_count=count,
        cost_per_generation=money.credits(price.cost_micro),
        cost_total_consumed=money.credits(total),
        credit_balance=money.credits(balance_micro),
        credit_balance_can_afford=balance_micro >= total,
        credit_balance_max_affordable=max(balance_micro, 0) // price.cost_micro,
    )
    if price.per_second is not None and price.seconds is not None:
        data.cost_per_second = money.credits(money.round_micros(price.per_second))
        data.duration_seconds = price.seconds
    if price.resolution is not None:
        data.resolution = price.resolution
    return data


def _inputs(model: Model, query: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: spec.default for name, spec in model.fields.items() if spec.default is not None}
    duration = _duration(model, query.get("duration"))
    if duration is not None:
        inputs["generation_duration"] = duration
    if "resolution" in query:
        if query["resolution"] not in (model.schema.resolutions or ()):
            raise _wrong(model, "resolution", model.schema.resolutions or ())
        inputs["generation_resolution"] = query["resolution"]
    if "audio" in query:
        if query["audio"] and not model.schema.audio:
            raise _wrong(model, "audio", ())
        if model.schema.audio:
            inputs["generation_generate_audio"] = query["audio"]
    for condition in model.excludes:
        # Only what an estimate can name: the absence of a prompt says nothing here.
        if condition.keys() <= inputs.keys() and matches(condition, inputs, model.fields):
            raise refusals.impossible(model, condition, inputs, prefix="")
    return inputs


def _duration(model: Model, asked: int | None) -> int | None:
    durations = model.schema.durations
    if durations is not None:
        if asked is None:
            return min(durations)
        if asked not in durations:
            raise _wrong(model, "duration", durations)
    elif asked is not None and (model.max_seconds is None or not 1 <= asked <= model.max_seconds):
        raise _wrong(model, "duration", range(1, (model.max_seconds or 0) + 1))
    return asked


def _wrong(model: Model, parameter: str, allowed: tuple[str | int, ...] | range) -> ApiError:
    values = list(allowed)
    if not values:
        return invalid_input(parameter, f"{model.identifier} has no choice of {parameter}.", allowed=[])
    told = ", ".join(str(value) for value in values)
    return invalid_input(
        parameter, f"{parameter} must be one of {told} for {model.identifier}.", allowed=values
    )
