"""What must hold for a model beyond the shape of its tables."""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from babysea_server.catalog.limits import PRESENCE_TYPES
from babysea_server.catalog.sources import Entry, Faults
from babysea_server.catalog.types import Condition, FieldSpec, Model, ProviderModel

Report = Callable[[str, str], None]

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,127}")
_SMALLEST_PRICE = Decimal("0.000001")
_ARRAYS = ("url-array", "string-array")
_NUMBERS = ("integer", "number")


def check_model(model: Model, known_providers: Mapping[str, Any], entry: Entry, faults: Faults) -> None:
    """Add a fault for everything in the model that contradicts itself or its surroundings."""

    def report(part: str, message: str) -> None:
        faults.add(entry.file_of(part), f"{model.identifier}: {part}" if part else model.identifier, message)

    for name in (model.identifier, *model.aliases):
        if not _IDENTIFIER.fullmatch(name):
            report("aliases" if name in model.aliases else "", f"{name!r} is not an identifier like lab/name")
    for spec in model.fields.values():
        for message in _field_faults(spec):
            report(f"fields.{spec.name}", message)
    _check_inputs(model, report)
    _check_providers(model, known_providers, report)
    _check_pricing(model, report)
    _check_excludes(model, model.excludes, "excludes", report)
    for name in model.ignored:
        if name in model.fields:
            report("ignored", f"{name} is one of the model's fields")


def _check_inputs(model: Model, report: Report) -> None:
    if model.media == "image":
        for name in ("generation_duration", "generation_generate_audio"):
            if name in model.fields:
                report(f"fields.{name}", "belongs to video models")
    number = model.fields.get("generation_output_number")
    if number is not None and (number.max is None or number.min != 1 or number.type != "integer"):
        report("fields.generation_output_number", "runs from 1 to a stated max")
    duration = model.fields.get("generation_duration")
    if duration is not None and (
        not duration.enum or any(type(value) is not int or value < 1 for value in duration.enum)
    ):
        report("fields.generation_duration", "lists whole seconds in `enum`")
    resolution = model.fields.get("generation_resolution")
    if resolution is not None and resolution.enum and resolution.default != resolution.enum[0]:
        report("fields.generation_resolution", "has the first of its list as default, always")


def _field_faults(spec: FieldSpec) -> Iterator[str]:
    if spec.enum is not None:
        kind = {"enum": str, "integer": int}.get(spec.type)
        if kind is None:
            yield f"a field of type {spec.type} takes no `enum`"
        elif not spec.enum or any(type(value) is not kind for value in spec.enum):
            yield f"`enum` lists at least one {'text' if kind is str else 'whole number'}"
        elif len(set(spec.enum)) != len(spec.enum):
            yield "`enum` lists a value twice"
    elif spec.type == "enum":
        yield "`enum` is missing"
    for label, bound in (("min", spec.min), ("max", spec.max)):
        if bound is not None and spec.type not in _NUMBERS:
            yield f"a field of type {spec.type} takes no `{label}`"
    if spec.min is not None and spec.max is not None and spec.min > spec.max:
        yield f"`min` {spec.min} is above `max` {spec.max}"
    if spec.max_items is not None and (spec.type not in _ARRAYS or spec.max_items < 1):
        yield "`max_items` is at least 1 and belongs to lists"
    if spec.max_length is not None and (spec.type != "string" or spec.max_length < 1):
        yield "`max_length` is at least 1 and belongs to texts"
    if spec.default is not None:
        yield from _default_faults(spec, spec.default)


def _default_faults(spec: FieldSpec, default: str | int | float | bool) -> Iterator[str]:
    kinds: dict[str, tuple[type, ...]] = {
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
        "string": (str,),
        "enum": (str,),
    }
    if spec.required:
        yield "a required field has no `default`"
    if type(default) not in kinds.get(spec.type, ()):
        yield f"{default!r} is no default for a field of type {spec.type}"
    elif spec.enum is not None and default not in spec.enum:
        yield f"the default {default!r} is not in `enum`"
    elif isinstance(default, int | float) and (
        (spec.min is not None and default < spec.min) or (spec.max is not None and default > spec.max)
    ):
        yield f"the default {default!r} is outside `min` and `max`"


def _check_providers(model: Model, known: Mapping[str, Any], report: Report) -> None:
    order = model.provider_ids
    if len(set(order)) != len(order):
        report("provider_order", "names a provider twice")
    for name in order:
        if name not in model.providers:
            report("provider_order", f"{name} has no table under `providers`")
    for name, provider in model.providers.items():
        if name not in known:
            report(f"providers.{name}", "is not in providers.toml")
        for message in _provider_faults(model, provider):
            report(f"providers.{name}", message)
        _check_excludes(model, provider.excludes, f"providers.{name}", report)


def _provider_faults(model: Model, provider: ProviderModel) -> Iterator[str]:
    for field in (*provider.params, *provider.value_map):
        if not field.startswith("generation_"):
            yield f"{field} is not a field's name"
    for field in provider.limits:
        if not provider.partial and _narrower(model, field, provider):
            yield f"limits.{field} is narrower than the model, so the provider must be `partial`"
    for resolution in provider.models_by_resolution:
        if resolution not in (model.schema.resolutions or ()):
            yield f"models_by_resolution names {resolution!r}, which the model does not have"
    for value in _figures(provider.usd):
        if not value.is_finite() or value < 0:
            yield f"usd is an amount of at least 0, not {value}"


def _narrower(model: Model, field: str, provider: ProviderModel) -> bool:
    spec = model.fields.get(field)
    limit = provider.limits[field]
    if spec is None or limit == "many" or limit is True:
        return False
    if limit is False:
        return True
    if isinstance(limit, list):
        return not set(spec.enum or ()) <= set(limit)
    most = spec.max_items if spec.type in _ARRAYS else spec.max
    return isinstance(limit, int) and most is not None and limit < most


def _figures(price: object) -> tuple[Decimal, ...]:
    if isinstance(price, Mapping):
        return tuple(price.values())
    return (price,) if isinstance(price, Decimal) else ()


def _check_pricing(model: Model, report: Report) -> None:
    for part, price in (("pricing", model.pricing), ("pricing_tiers", model.pricing_tiers)):
        for value in _figures(price):
            if not value.is_finite() or value < _SMALLEST_PRICE:
                report(part, f"a price is at least {_SMALLEST_PRICE} credits, not {value}")
    if model.pricing is None:
        return
    if not model.provider_ids:
        report("provider_order", "is empty, and the model has a price")
    if isinstance(model.pricing, Mapping):
        _check_keys(model, model.pricing, report)
    if model.pricing_tiers:
        _check_tiers(model, report)
    by_second = model.pricing_unit == "second"
    follows_source = by_second and "generation_duration" not in model.fields
    if by_second and model.media == "image":
        report("pricing_unit", "an image is not priced by the second")
    elif follows_source and (model.max_seconds is None or model.max_seconds < 1):
        report("max_seconds", "is needed: the length follows the source, and this much is reserved")
    if not follows_source and model.max_seconds is not None:
        report("max_seconds", "belongs to models priced by the second that have no generation_duration")


def _check_keys(model: Model, pricing: Mapping[str, Decimal], report: Report) -> None:
    """Every combination of resolution and sound has a price, and every price a combination."""
    sounds = ("noaudio", "audio") if "generation_generate_audio" in model.fields else ("noaudio",)
    used: set[str] = set()
    for resolution in model.schema.resolutions or (None,):
        for sound in sounds:
            keys = [key for key in (f"{resolution}_{sound}", resolution, sound) if key in pricing]
            if keys:
                used.add(str(keys[0]))
            else:
                name = sound if resolution is None else f"{resolution}_{sound}"
                report("pricing", f"has no price for {name}")
    for key in pricing:
        if key not in used:
            report("pricing", f"{key!r} is never used: the model has no such resolution or sound")


def _check_tiers(model: Model, report: Report) -> None:
    for name in ("generation_resolution", "generation_quality"):
        spec = model.fields.get(name)
        values = spec.enum if spec is not None and spec.enum is not None else ()
        if any(value in model.pricing_tiers for value in values):
            for value in values:
                if value not in model.pricing_tiers and value != "auto":
                    report("pricing_tiers", f"has no price for {name} {value!r}")
            for key in model.pricing_tiers:
                if key not in values:
                    report("pricing_tiers", f"{key!r} is not one of the values of {name}")
            return
    report("pricing_tiers", "names neither a quality nor a resolution of the model")


def _check_excludes(model: Model, excludes: tuple[Condition, ...], part: str, report: Report) -> None:
    for condition in excludes:
        for name, value in condition.items():
            spec = model.fields.get(name)
            if spec is None:
                report(part, f"excludes names {name}, which the model does not have")
            elif spec.type in PRESENCE_TYPES or spec.type == "boolean":
                if not isinstance(value, bool):
                    report(part, f"excludes takes true or false for {name}")
            elif spec.enum is not None and value not in spec.enum:
                report(part, f"excludes names {value!r}, which is not a value of {name}")
