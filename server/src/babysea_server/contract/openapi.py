"""The OpenAPI 3.0.3 document of one region, made from the operations table.

It is what the server publishes and what the firewall is compiled from. The same arguments always give
the same document, member for member.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from babysea_server.contract.envelope import ErrorEnvelope
from babysea_server.contract.examples import EXAMPLES
from babysea_server.contract.operations import COMMON_ERRORS, OPERATIONS, Operation, Parameter
from babysea_server.contract.schemas import reference, struct_schemas
from babysea_server.errors import ERRORS, ErrorSpec

API_VERSION = "1.0.0"

_DESCRIPTION = """\
One authenticated API in front of many inference providers. A generation is accepted durably, its credits
are reserved, and it is executed asynchronously: read it, list it, or receive webhooks.

Every answer carries `X-Request-Id`. An error names a stable `code`; `retryable` is true only when
repeating the very same request can succeed and cannot buy twice."""

_TAGS = {
    "Generation": "Start images and videos.",
    "Content": "Read, cancel and delete generations.",
    "Library": "Models, providers and prices.",
    "Account": "The key, its account, usage and billing.",
    "Health": "How providers, storage and cache do in this region.",
}
_REQUEST_ID = "req_8f14e45fceea167a5a36dedd"
_TIMESTAMP = "2026-04-28T12:00:00.000Z"
#: Structs whose objects carry members beyond the named ones: the model's own inputs.
_OPEN_STRUCTS = ("GenerationData",)
#: Facts that the contract promises in an error's `details`, shown in the examples.
_EXAMPLE_DETAILS: Mapping[str, Mapping[str, Any]] = {
    "BSE1003": {"required": "generation:write", "granted": ["generation:read"]},
    "BSE1005": {"retry_after_seconds": 12, "limit": 60},
    "BSE1009": {"limit": 5, "in_flight": 5},
    "BSE1010": {
        "rule": "invalid_query_parameter",
        "location": "query.days",
        "allowed": {"type": "integer", "minimum": 1, "maximum": 90},
    },
    "BSE2001": {"field": "generation_ratio"},
    "BSE2010": {"max_bytes": 102_400},
}

_HEADERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "X-Request-Id": ("The id of this request, also in the body.", {"type": "string", "example": _REQUEST_ID}),
    "X-RateLimit-Limit": (
        "Requests per minute of the account's plan; absent when the plan has no limit.",
        {"type": "integer"},
    ),
    "X-RateLimit-Remaining": ("Requests left in this minute.", {"type": "integer"}),
    "X-RateLimit-Reset": ("When the minute ends, in Unix seconds.", {"type": "integer"}),
    "Retry-After": (
        "Whole seconds to wait before the request is repeated.",
        {"type": "integer", "minimum": 1},
    ),
    "Idempotency-Replayed": (
        "Present when this is the first answer again, not a new generation.",
        {"type": "string", "enum": ["true"]},
    ),
    "Server-Timing": ("Milliseconds that the control plane itself took, by phase.", {"type": "string"}),
    "WWW-Authenticate": ("The scheme that authenticates.", {"type": "string", "enum": ["Bearer"]}),
}
_RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

#: Where an answer names its generation, and what can be done next with it (OpenAPI links).
_GENERATION_ID = "$response.body#/data/generation_id"
_NEXT: Mapping[str, Sequence[str]] = {
    "generate": ("get_generation", "cancel_generation", "delete_generation"),
    "get_generation": ("cancel_generation", "delete_generation"),
    "cancel_generation": ("get_generation", "delete_generation"),
}

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes a repetition within 24 hours answer with the first generation.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,255}$"},
    "example": "order-7301-cover",
}


class ModelBody(msgspec.Struct, frozen=True):
    """What the document says of one model: its generate body as a 3.0.3 schema, and a valid example."""

    identifier: str
    media: Literal["image", "video"]
    schema: Mapping[str, Any]
    example: Mapping[str, Any]


def build_document(region: str, *, server_url: str, models: Sequence[ModelBody]) -> dict[str, Any]:
    """The OpenAPI document that `region` publishes under `server_url`."""
    ordered = sorted(models, key=lambda model: model.identifier)
    model_schemas = _model_schemas(ordered)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, ordered, list(model_schemas)
        )
    return {
        "openapi": "3.0.3",
        "info": {"title": "BabySea API", "version": API_VERSION, "description": _DESCRIPTION},
        "servers": [{"url": server_url, "description": f"Region {region}"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "bye_...",
                    "description": "An API key of this region; a key of another region is unknown here.",
                }
            },
            "headers": {
                name: {"description": text, "schema": dict(schema)}
                for name, (text, schema) in _HEADERS.items()
            },
            "responses": {
                f"Error{status}": _error_response(status, rows)
                for status, rows in _errors_by_status().items()
            },
            "schemas": {**_struct_schemas(), **model_schemas},
        },
        "x-babysea-region": region,
    }


def _operation(
    operation: Operation, models: Sequence[ModelBody], model_schemas: Sequence[str]
) -> dict[str, Any]:
    parameters = [_parameter(parameter, "path") for parameter in operation.path_parameters]
    parameters += [_parameter(parameter, "query") for parameter in operation.query_parameters]
    result: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": f"Needs the scope `{operation.scope}`.",
        "tags": [operation.tag],
        "x-babysea-scope": operation.scope,
        # Every status is documented for every operation; these are the codes that it really answers.
        "x-babysea-errors": sorted(error.code for error in (*COMMON_ERRORS, *operation.errors)),
    }
    if operation.body == "generation":
        parameters.append(_IDEMPOTENCY_KEY)
        result["requestBody"] = _generate_body(models, model_schemas)
    if parameters:
        result["parameters"] = parameters
    result["responses"] = {"200": _success_response(operation)} | {
        str(status): {"$ref": f"#/components/responses/Error{status}"} for status in _errors_by_status()
    }
    return result


def _parameter(parameter: Parameter, place: Literal["path", "query"]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": parameter.name,
        "in": place,
        "required": place == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.example is not None:
        result["example"] = parameter.example
    return result


def _success_response(operation: Operation) -> dict[str, Any]:
    variants = [reference(kind.__name__) for kind in operation.data]
    properties: dict[str, Any] = {
        "status": {"type": "string", "enum": ["success"]},
        "request_id": {"type": "string", "description": "Also in the `X-Request-Id` header."},
        "message": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": variants[0] if len(variants) == 1 else {"anyOf": variants},
    }
    example: dict[str, Any] = {
        "status": "success",
        "request_id": _REQUEST_ID,
        "message": operation.message,
        "timestamp": _TIMESTAMP,
        "data": EXAMPLES[operation.id],
    }
    if operation.paged:
        for name, least, shown in (("total", 0, 1), ("limit", 1, 50), ("offset", 0, 0)):
            properties[name] = {"type": "integer", "minimum": least}
            example[name] = shown
    names = ["X-Request-Id", *_RATE_HEADERS, "Server-Timing"]
    if operation.body == "generation":
        names.append("Idempotency-Replayed")
    response: dict[str, Any] = {
        "description": operation.message,
        "headers": _header_references(names),
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": list(properties), "properties": properties},
                "example": example,
            }
        },
    }
    if operation.id in _NEXT:
        response["links"] = {
            following: {"operationId": following, "parameters": {"generation_id": _GENERATION_ID}}
            for following in _NEXT[operation.id]
        }
    return response


def _error_response(status: int, rows: Sequence[ErrorSpec]) -> dict[str, Any]:
    names = ["X-Request-Id", "Server-Timing"]
    names += ["WWW-Authenticate"] if status == 401 else _RATE_HEADERS
    if status in (409, 429, 503):
        names.append("Retry-After")
    return {
        "description": ", ".join(f"{row.code} {row.type}" for row in rows),
        "headers": _header_references(names),
        "content": {
            "application/json": {
                "schema": reference(ErrorEnvelope.__name__),
                "examples": {
                    row.code: {
                        "summary": row.when.replace("`", ""),
                        "description": row.remedy,
                        "value": _error_example(row),
                    }
                    for row in rows
                },
            }
        },
    }


def _error_example(row: ErrorSpec) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": row.code,
        "type": row.type,
        "message": row.when.replace("`", ""),
        "retryable": row.retryable,
    }
    if row.code in _EXAMPLE_DETAILS:
        error["details"] = _EXAMPLE_DETAILS[row.code]
    return {"status": "error", "request_id": _REQUEST_ID, "error": error}


def _errors_by_status() -> dict[int, list[ErrorSpec]]:
    by_status: dict[int, list[ErrorSpec]] = {}
    for row in sorted(ERRORS.values(), key=lambda row: (row.status, row.code)):
        by_status.setdefault(row.status, []).append(row)
    return by_status


def _header_references(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


@functools.cache  # the same in every region, and nobody changes a document
def _struct_schemas() -> dict[str, dict[str, Any]]:
    types = dict.fromkeys(kind for operation in OPERATIONS for kind in operation.data)
    schemas = struct_schemas([*types, ErrorEnvelope])
    for name in _OPEN_STRUCTS:
        schemas[name]["additionalProperties"] = True
    return schemas


def _model_schemas(models: Sequence[ModelBody]) -> dict[str, dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = {}
    for model in models:
        stem = name = "Generate_" + re.sub(r"[^A-Za-z0-9-]", "_", model.identifier)
        count = 1
        while name in schemas:
            count += 1
            name = f"{stem}_{count}"
        schemas[name] = {
            **model.schema,
            "example": model.example,
            "x-babysea-model": model.identifier,
            "x-babysea-media": model.media,
        }
    return schemas


def _generate_body(models: Sequence[ModelBody], model_schemas: Sequence[str]) -> dict[str, Any]:
    """The body of any model: a path cannot choose a schema in OpenAPI, so the text says which is whose."""
    by_media = {media: [model for model in models if model.media == media] for media in ("image", "video")}
    lines = ["The fields of the model that the path names; each schema tells its model in `x-babysea-model`."]
    lines += [
        f"{media.capitalize()} models: {', '.join(f'`{model.identifier}`' for model in group)}."
        for media, group in by_media.items()
        if group
    ]
    content: dict[str, Any] = {
        "schema": {"anyOf": [reference(name) for name in model_schemas]} if models else {"type": "object"}
    }
    examples = {
        media: {"summary": group[0].identifier, "value": group[0].example}
        for media, group in by_media.items()
        if group
    }
    if examples:
        content["examples"] = examples
    return {"required": True, "description": "\n\n".join(lines), "content": {"application/json": content}}
