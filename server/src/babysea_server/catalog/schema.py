"""The generate body of a model as a schema: one document for validation, the OpenAPI text and an example."""

from typing import Any

import jsonschema_rs

from babysea_server.catalog.types import FieldSpec, Model

#: Integers that every JSON reader holds exactly.
MAX_INTEGER = 2**53 - 1
#: The longest text inside a list of texts.
MAX_LIST_TEXT = 1000
PROVIDER_ORDER = "generation_provider_order"

_EXAMPLE_PROMPT = "A lighthouse at dusk, waves against the rocks"
_EXAMPLE_IMAGE = "https://example.com/source.png"
_EXAMPLE_FILES = {
    "generation_input_video_file": "https://example.com/source.mp4",
    "generation_input_audio_file": "https://example.com/source.mp3",
}


def body_schema(model: Model) -> dict[str, Any]:
    """The schema object of one model's body: OpenAPI 3.0.3, and valid JSON Schema as well."""
    properties = {name: _property(spec) for name, spec in model.fields.items()}
    properties[PROVIDER_ORDER] = _provider_order_property(model)
    schema: dict[str, Any] = {
        "type": "object",
        "title": f"{model.display_name} ({model.identifier})",
        "description": model.description,
        "properties": properties,
        "additionalProperties": False,
        "example": example_body(model),
    }
    required = [name for name, spec in model.fields.items() if spec.required]
    if required:  # OpenAPI 3.0 does not allow an empty list
        schema["required"] = required
    return schema


def example_body(model: Model) -> dict[str, Any]:
    """A minimal body that the model accepts."""
    body: dict[str, Any] = {}
    for name, spec in model.fields.items():
        if name == "generation_prompt":
            body[name] = _EXAMPLE_PROMPT
        elif spec.required:
            body[name] = _example(spec)
    return body


def compile_body(model: Model) -> jsonschema_rs.Draft202012Validator:
    """The model's validator, compiled on first use and kept with the model."""
    validator = model.compiled.validator
    if validator is None:
        validator = jsonschema_rs.Draft202012Validator(body_schema(model), validate_formats=False)
        model.compiled.validator = validator
    return validator


def _property(spec: FieldSpec) -> dict[str, Any]:
    schema: dict[str, Any]
    if spec.type == "enum":
        schema = {"type": "string"}
    elif spec.type == "string":
        schema = {"type": "string", "maxLength": spec.max_length}
        if spec.name == "generation_prompt":
            schema |= {"minLength": 1, "pattern": r"\S"}
    elif spec.type == "url":
        schema = {"type": "string", "format": "uri"}
    elif spec.type in ("url-array", "string-array"):
        item: dict[str, Any] = {"type": "string"}
        item |= {"format": "uri"} if spec.type == "url-array" else {"maxLength": MAX_LIST_TEXT}
        schema = {"type": "array", "items": item, "maxItems": spec.max_items}
        if spec.required:
            schema["minItems"] = 1
    elif spec.type == "integer":
        low, high = spec.min, spec.max
        schema = {
            "type": "integer",
            "minimum": -MAX_INTEGER if low is None else low,
            "maximum": MAX_INTEGER if high is None else high,
        }
    else:
        schema = {"type": spec.type}
        if spec.min is not None:
            schema["minimum"] = spec.min
        if spec.max is not None:
            schema["maximum"] = spec.max
    if spec.enum is not None:
        schema["enum"] = list(spec.enum)
    if spec.default is not None:
        schema["default"] = spec.default
    schema["description"] = spec.description
    return schema


def _provider_order_property(model: Model) -> dict[str, Any]:
    ids = model.provider_ids
    description = (
        "The providers to try, in order, joined by `, `: any of "
        + ", ".join(f"`{name}`" for name in ids)
        + ". `fastest` lets the server choose."
    )
    return {"type": "string", "default": "fastest", "example": ", ".join(ids), "description": description}


def _example(spec: FieldSpec) -> Any:
    if spec.enum:
        return spec.enum[0]
    file = _EXAMPLE_FILES.get(spec.name, _EXAMPLE_IMAGE)
    low = 1 if spec.min is None else spec.min
    examples: dict[str, Any] = {
        "string": "text",
        "integer": int(low),
        "number": low,
        "boolean": False,
        "url": file,
        "url-array": [file],
        "string-array": ["text"],
        "object": {},
    }
    return examples[spec.type]
