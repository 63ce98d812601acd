"""What a customer is told about a body that a model does not accept: what would be right."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from babysea_server.catalog.limits import PRESENCE_TYPES, matches
from babysea_server.catalog.schema import MAX_LIST_TEXT, PROVIDER_ORDER
from babysea_server.catalog.types import Condition, FieldSpec, Model
from babysea_server.errors import INVALID_PROVIDER_ORDER, ApiError, invalid_input

_LONGEST_NAME = 80


def unknown_field(model: Model, name: str) -> ApiError:
    """A field that the model does not have and whose value it would not produce anyway."""
    if name == "generation_output_format" and model.schema.output_formats:
        only = model.schema.output_formats
        return invalid_input(
            name, f"{model.identifier} makes {_either(only)}; leave {name} out.", allowed=list(only)
        )
    if name == "generation_output_number":
        return invalid_input(name, f"{model.identifier} makes one output per request.", allowed=[1])
    if name == "generation_generate_audio" and model.media == "video":
        return invalid_input(name, f"{model.identifier} makes no sound; leave {name} out.", allowed=[False])
    if name in ("generation_ratio", "generation_resolution", "generation_output_format"):
        return invalid_input(
            name, f"{model.identifier} offers no choice of {name}; leave it out.", allowed=[]
        )
    shown = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."
    names = [*model.fields, PROVIDER_ORDER]
    near = difflib.get_close_matches(shown, names, n=1)
    if near:
        message = f"{model.identifier} has no field {shown!r}; did you mean {near[0]}?"
        return invalid_input(shown, message, suggestion=near[0], allowed=names)
    return invalid_input(
        shown, f"{model.identifier} has no field {shown!r}; it takes {', '.join(names)}.", allowed=names
    )


def missing_field(spec: FieldSpec) -> ApiError:
    """A required field that was not sent."""
    return invalid_input(spec.name, f"{spec.name} is required: {_wanted(spec)}.", allowed=allowed(spec))


def wrong_value(spec: FieldSpec, value: object) -> ApiError:
    """A value of the wrong type or outside the field's range."""
    if spec.name == "generation_prompt" and isinstance(value, str) and not value.strip():
        return invalid_input(spec.name, "generation_prompt is blank: describe what to make.")
    details: dict[str, Any] = {"allowed": allowed(spec)}
    message = f"{spec.name} must be {_wanted(spec)}."
    if isinstance(value, str) and spec.enum is not None:
        near = difflib.get_close_matches(value[:_LONGEST_NAME], [str(item) for item in spec.enum], n=1)
        if near:
            details["suggestion"] = near[0]
    return invalid_input(spec.name, message, **details)


def wrong_url(spec: FieldSpec, position: int | None, reason: str) -> ApiError:
    """A URL that is not plainly public."""
    if position is None:
        return invalid_input(spec.name, f"{spec.name} must be a public http(s) URL: {reason}.")
    message = f"{spec.name}[{position}] must be a public http(s) URL: {reason}."
    return invalid_input(spec.name, message, index=position)


def allowed(spec: FieldSpec) -> Any:
    """The values that a field takes, for machines."""
    if spec.enum is not None:
        return list(spec.enum)
    if spec.type == "boolean":
        return [False, True]
    bounds = {
        "type": spec.type,
        "minimum": spec.min,
        "maximum": spec.max,
        "max_length": spec.max_length,
        "max_items": spec.max_items,
    }
    return {name: value for name, value in bounds.items() if value is not None}


def _wanted(spec: FieldSpec) -> str:
    if spec.enum is not None:
        return f"one of {', '.join(str(value) for value in spec.enum)}"
    least = "from 1 to" if spec.required else "at most"
    sentences = {
        "string": f"a text of at most {spec.max_length} characters",
        "boolean": "true or false",
        "integer": "a whole number" + _range(spec),
        "number": "a number" + _range(spec),
        "url": "a public http(s) URL",
        "url-array": f"a list of {least} {spec.max_items} public http(s) URLs",
        "string-array": f"a list of {least} {spec.max_items} texts of at most {MAX_LIST_TEXT} characters",
        "object": "a JSON object",
    }
    return sentences[spec.type]


def _range(spec: FieldSpec) -> str:
    if spec.min is not None and spec.max is not None:
        return f" from {spec.min} to {spec.max}"
    if spec.min is not None:
        return f" of at least {spec.min}"
    return f" of at most {spec.max}" if spec.max is not None else ""


def impossible(
    model: Model, condition: Condition, inputs: Mapping[str, Any], prefix: str = "generation_"
) -> ApiError:
    """Values that are right one by one and impossible together.

    `prefix` is how the caller spelled the names: parameters of the estimate have none.
    """

    def spelled(name: str) -> str:
        return prefix + name.removeprefix("generation_")

    def told(name: str, value: object) -> str:
        if model.fields[name].type in PRESENCE_TYPES:
            return spelled(name) if value else f"no {spelled(name)}"
        return f"{spelled(name)} {str(value).lower() if isinstance(value, bool) else value}"

    names = list(condition)
    first = names[0]
    if all(model.fields[name].type in PRESENCE_TYPES and not condition[name] for name in names):
        allowed_names = [spelled(name) for name in names]
        return invalid_input(spelled(first), f"Give {_either(allowed_names)}.", allowed=allowed_names)
    rest = " and ".join(told(name, condition[name]) for name in names[1:])
    message = f"{told(first, condition[first])} is not available" + (f" with {rest}" if rest else "")
    enum = model.fields[first].enum
    if enum is None:
        return invalid_input(spelled(first), message + ".")
    possible = [
        value
        for value in enum
        if not any(matches(other, {**inputs, first: value}, model.fields) for other in model.excludes)
    ]
    if possible:
        message += f"; with it, {spelled(first)} can be {_either(possible)}"
    return invalid_input(spelled(first), message + ".", allowed=possible)


def wrong_order(model: Model) -> ApiError:
    """A provider order that is neither `fastest` nor a selection of the model's providers."""
    ids = list(model.provider_ids)
    return ApiError(
        INVALID_PROVIDER_ORDER,
        f"{PROVIDER_ORDER} must be 'fastest' or some of {', '.join(ids)}, each once, joined by ', '.",
        details={"field": PROVIDER_ORDER, "allowed": ["fastest", *ids]},
    )


def no_provider(model: Model, order: Sequence[str], able: Iterable[str]) -> ApiError:
    """No provider of the order takes this combination of values."""
    able = list(able)
    message = f"{', '.join(order)} cannot serve this combination of values of {model.identifier}"
    message += f"; {_either(able)} can." if able else "."
    return ApiError(INVALID_PROVIDER_ORDER, message, details={"field": PROVIDER_ORDER, "allowed": able})


def _either(values: Sequence[object]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " or " + texts[-1]
