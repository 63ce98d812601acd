"""From a decoded body to an accepted request: checked, completed with defaults, priced.

This is on the path of every generation: a body that is right costs one compiled validation and one pass over
the model's fields; only a wrong one is looked at more closely.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import jsonschema_rs
import msgspec

from babysea_server.catalog import refusals
from babysea_server.catalog.limits import admits, expresses, matches
from babysea_server.catalog.pricing import quote
from babysea_server.catalog.schema import PROVIDER_ORDER, compile_body
from babysea_server.catalog.types import FieldSpec, Model
from babysea_server.errors import invalid_input
from babysea_server.kit.urls import check_public_url

_FASTEST = "fastest"


class GenerationRequest(msgspec.Struct, frozen=True):
    """What admission stores and execution reads."""

    model: Model
    inputs: dict[str, Any]
    """The accepted fields in the model's order, defaults filled in, without the provider order."""
    provider_order: tuple[str, ...] | None
    """The order the customer asked for; None means fastest."""
    eligible_providers: tuple[str, ...]
    """Those that take these inputs: in the order asked for, else in the model's."""
    cost_micro: int
    """What is reserved, in micro-credits."""
    rate_micro_per_second: Decimal | None
    """Set where the charge follows the measured length of the output, at this rate per output."""


def normalise(model: Model, body: object) -> GenerationRequest:
    """Check a decoded JSON body against the model and price it.

    Raises:
        ApiError: BSE2001 with the field at fault, BSE2013 for a provider order that cannot be followed.
    """
    if not isinstance(body, dict):
        raise invalid_input("body", "The body must be a JSON object with the model's fields.")
    validator = compile_body(model)
    if not validator.is_valid(body):
        body = _without_redundant(model, body)
        if not validator.is_valid(body):
            raise _refusal(model, body, validator)
    inputs = _inputs(model, body)
    for condition in model.excludes:
        if matches(condition, inputs, model.fields):
            raise refusals.impossible(model, condition, inputs)
    order = _provider_order(model, body.get(PROVIDER_ORDER, _FASTEST))
    eligible = _eligible(model, order, inputs)
    price = quote(model, inputs)
    return GenerationRequest(
        model=model,
        inputs=inputs,
        provider_order=order,
        eligible_providers=eligible,
        cost_micro=price.cost_micro,
        rate_micro_per_second=price.per_second if model.max_seconds is not None else None,
    )


def _without_redundant(model: Model, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without fields the model does not have but that ask for what it does anyway."""
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if name in model.fields or name == PROVIDER_ORDER:
            kept[name] = value
        elif not _redundant(model, name, value):
            raise refusals.unknown_field(model, name)
    return kept


def _redundant(model: Model, name: str, value: object) -> bool:
    if name in model.ignored:
        return True
    if name == "generation_output_format":
        return isinstance(value, str) and model.schema.output_formats == (value,)
    if name == "generation_output_number":
        return value == 1 and not isinstance(value, bool)
    return name == "generation_generate_audio" and model.media == "video" and value is False


def _refusal(
    model: Model, body: Mapping[str, Any], validator: jsonschema_rs.Draft202012Validator
) -> Exception:
    """The error for the first field at fault, in the model's order."""
    at_fault = {str(error.instance_path[0]) for error in validator.iter_errors(body) if error.instance_path}
    for name, spec in model.fields.items():
        if name in at_fault:
            return refusals.wrong_value(spec, body[name])
        if spec.required and name not in body:
            return refusals.missing_field(spec)
    return invalid_input(
        PROVIDER_ORDER,
        f"{PROVIDER_ORDER} must be one text: 'fastest', or provider ids joined by ', '.",
        allowed=[_FASTEST, *model.provider_ids],
    )


def _inputs(model: Model, body: Mapping[str, Any]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for name, spec in model.fields.items():
        if name not in body:
            if spec.default is not None:
                inputs[name] = spec.default
            continue
        value = body[name]
        if spec.type == "integer":
            value = int(value)  # JSON has one kind of number: 5.0 is 5
        elif spec.type in ("url", "url-array"):
            _check_urls(spec, value)
        if value != []:  # an empty list says the same as no list
            inputs[name] = value
    return inputs


def _check_urls(spec: FieldSpec, value: str | list[str]) -> None:
    single = isinstance(value, str)
    for position, url in enumerate([value] if isinstance(value, str) else value):
        try:
            check_public_url(url)
        except ValueError as error:
            raise refusals.wrong_url(spec, None if single else position, str(error)) from error


def _provider_order(model: Model, text: str) -> tuple[str, ...] | None:
    if text == _FASTEST:
        return None
    order = tuple(part.strip() for part in text.split(","))
    if len(set(order)) != len(order) or not set(order) <= set(model.provider_ids):
        raise refusals.wrong_order(model)
    return order


def _eligible(model: Model, order: tuple[str, ...] | None, inputs: Mapping[str, Any]) -> tuple[str, ...]:
    asked = order or model.provider_ids
    eligible = tuple(name for name in asked if admits(model.providers[name], inputs, model))
    if not eligible:
        able = [name for name in model.provider_ids if admits(model.providers[name], inputs, model)]
        raise refusals.no_provider(model, asked, able)
    # A failover must not change what a request means: who can be told all of it goes without those who cannot.
    exact = tuple(name for name in eligible if expresses(model.providers[name], inputs, model))
    return exact or eligible
