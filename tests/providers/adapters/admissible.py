"""Requests that a provider must be able to take: for each of its models, what customers may send it."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from babysea_server.catalog.catalog import load_catalog
from babysea_server.catalog.normalise import normalise
from babysea_server.catalog.types import FieldSpec, Model
from babysea_server.errors import ApiError
from babysea_server.providers.base import Job

PROMPT = "a red fox"
ATTEMPT = UUID("0198f2c0-0000-7000-8000-00000000beef")


@functools.cache
def models_of(provider: str) -> Mapping[str, Model]:
    """Every model that the provider serves, also those that are not offered for want of a price."""
    catalog = load_catalog(None, joined=[provider])
    return {
        identifier: model if model.pricing is not None else replace(model, pricing=Decimal("0.01"))
        for identifier, model in catalog.all_models.items()
        if provider in model.provider_ids
    }


def jobs(provider: str, model: Model) -> Iterator[Job]:
    """The least request, each value of each field alone, and as much as goes together; defaults filled in."""
    required = {name: _values(spec)[0] for name, spec in model.fields.items() if spec.required}
    singles = [{name: value} for name, spec in model.fields.items() for value in _values(spec)]
    # A provider may refuse the model's own default of a field: the least that it takes says another value.
    starts = (required | change for change in ({}, *singles))
    least = next(start for start in starts if _accepted(provider, model, start) is not None)
    whole = least
    for change in singles:
        if _accepted(provider, model, whole | change) is not None:
            whole = whole | change
    for body in (least, *(least | change for change in singles), whole):
        inputs = _accepted(provider, model, body)
        if inputs is not None:
            yield Job(ATTEMPT, provider, model, inputs)


def _accepted(provider: str, model: Model, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        request = normalise(model, dict(body))
    except ApiError:
        return None
    return request.inputs if provider in request.eligible_providers else None


def _values(spec: FieldSpec) -> list[Any]:
    if spec.enum is not None:
        return list(spec.enum)
    low, high = spec.min, spec.max
    match spec.type:
        case "boolean":
            return [False, True]
        case "integer":
            return sorted({int(low if low is not None else 1), int(high if high is not None else 7)})
        case "number":
            return sorted({float(low if low is not None else 1), float(high if high is not None else 7.5)})
        case "url":
            return [f"https://files.example.com/{spec.name}.png"]
        case "url-array":
            count = spec.max_items or 1
            urls = [f"https://files.example.com/{spec.name}-{index}.png" for index in range(count)]
            return [urls[:1], urls]
        case "string-array":
            return [["1,2,3,4"]]
        case "object":
            return [{"red": 1}]
        case _:
            return [PROMPT]
