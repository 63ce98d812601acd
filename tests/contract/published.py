"""Holding answers against the published document: status, headers, body; nothing missing and nothing extra."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

import httpx
import jsonschema_rs
from tests.contract.asgi import Answer

Schema = dict[str, Any]

#: Headers of the connection and of browsers: the document leaves them out.
_UNDOCUMENTED = frozenset(
    (
        *("content-type", "content-length", "cache-control", "x-content-type-options", "connection", "date"),
        *("access-control-allow-origin", "access-control-expose-headers", "content-security-policy"),
        *("cross-origin-resource-policy", "referrer-policy", "x-frame-options", "strict-transport-security"),
    )
)


class Published:
    """An OpenAPI 3.0.3 document as a judge of answers."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        components = document["components"]["schemas"]
        self._components = {name: to_json_schema(schema) for name, schema in components.items()}
        self._operations = {
            operation["operationId"]: operation
            for item in document["paths"].values()
            for operation in item.values()
        }
        self._sites = [
            (method.upper(), re.compile(_pattern(path, operation)), operation["operationId"])
            for path, item in document["paths"].items()
            for method, operation in item.items()
        ]
        self._inputs = {
            schema["x-babysea-model"]: frozenset(schema.get("properties", ()))
            for schema in components.values()
            if "x-babysea-model" in schema
        }
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def inputs(self, model: str) -> frozenset[str]:
        """The fields that a model takes; none when the document does not have it."""
        return self._inputs.get(model, frozenset())

    def operation_at(self, method: str, path: str) -> str | None:
        """The id of the operation that a request asks for, or None where there is none."""
        for verb, pattern, operation in self._sites:
            if verb == method and pattern.fullmatch(path):
                return str(operation)
        return None

    def check(self, operation: str | None, answer: Answer) -> None:
        """Assert that an answer is one that the document describes.

        Args:
            operation: its operation id; None for a request that is none, which can only be an error.
        """
        if operation is None:
            assert answer.status != 200
            name = f"Error{answer.status}"
        else:
            responses = self._operations[operation]["responses"]
            assert str(answer.status) in responses, f"{operation} documents no status {answer.status}"
            name = operation if answer.status == 200 else f"Error{answer.status}"
        response = self._response(name)
        (media_type,) = response["content"]
        assert answer.headers["content-type"] == media_type
        self._check_headers(response, answer)
        validator = self._validator(name, response["content"][media_type]["schema"])
        faults = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(answer.json)]
        assert not faults, f"{name}: {faults} in {answer.body!r}"
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        if operation in ("get_generation", "list_generations") and answer.status == 200:
            data = answer.json["data"]
            for generation in data.get("generations", [data]):
                self._check_inputs(generation)
        if name.startswith("Error"):
            shown = response["content"][media_type]["examples"]
            assert answer.code in shown, f"{answer.code} is not documented for status {answer.status}"
            if operation is not None:
                codes = self._operations[operation]["x-babysea-errors"]
                assert answer.code in codes, f"{operation} does not document {answer.code}"
            example = shown[answer.code]["value"]["error"]
            for member in ("type", "retryable"):
                assert answer.json["error"][member] == example[member]

    def _check_inputs(self, generation: Mapping[str, Any]) -> None:
        """The one open object: beside its own members it holds the model's inputs and nothing else."""
        members = self.document["components"]["schemas"]["GenerationData"]["properties"].keys()
        extra = generation.keys() - members - self.inputs(generation["model_identifier"])
        assert not extra, f"undocumented members of a generation: {extra}"

    def _response(self, name: str) -> Mapping[str, Any]:
        responses: Mapping[str, Mapping[str, Any]] = self.document["components"]["responses"]
        if name.startswith("Error"):
            assert name in responses, f"no operation documents {name}"
            return responses[name]
        response: Mapping[str, Any] = self._operations[name]["responses"]["200"]
        return response

    def _check_headers(self, response: Mapping[str, Any], answer: Answer) -> None:
        documented = {name.lower(): name for name in response["headers"]}
        extra = answer.headers.keys() - documented.keys() - _UNDOCUMENTED
        assert not extra, f"undocumented headers: {extra}"
        for lower, name in documented.items():
            if lower in answer.headers:
                schema = self.document["components"]["headers"][name]["schema"]
                text = answer.headers[lower]
                value = int(text) if schema["type"] == "integer" else text
                assert jsonschema_rs.is_valid(to_json_schema(schema), value), f"{name}: {text}"

    def _validator(self, name: str, schema: Schema) -> jsonschema_rs.Draft202012Validator:
        if name not in self._validators:
            whole = {**to_json_schema(schema), "components": {"schemas": self._components}}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._validators[name]


def judge(document: bytes) -> Callable[[httpx.Response], Awaitable[None]]:
    """A response hook for httpx that holds every answer under `/v1` against `/openapi.json`."""
    published = _published(document)

    async def check(response: httpx.Response) -> None:
        request = response.request
        path = request.url.raw_path.partition(b"?")[0].decode("latin-1")
        if not path.startswith("/v1/") or request.method in ("OPTIONS", "HEAD"):
            return
        await response.aread()
        published.check(published.operation_at(request.method, path), answer_of(response))

    return check


@lru_cache(maxsize=8)
def _published(document: bytes) -> Published:
    """Compiled once: the deployments of a run publish few different documents."""
    return Published(json.loads(document))


def _pattern(path: str, operation: Mapping[str, Any]) -> str:
    """A documented path as a pattern: each parameter is what its schema says."""
    schemas = {parameter["name"]: parameter["schema"] for parameter in operation.get("parameters", ())}

    def text(segment: str) -> str:
        if not segment.startswith("{"):
            return re.escape(segment)
        schema = schemas[segment[1:-1]]
        if "enum" in schema:
            return f"(?:{'|'.join(map(re.escape, schema['enum']))})"
        return f"(?:{schema['pattern'].removeprefix('^').removesuffix('$')})"

    return "/".join(map(text, path.split("/")))


def to_json_schema(schema: Mapping[str, Any]) -> Schema:
    """A schema object of OpenAPI 3.0.3 as JSON Schema 2020-12.

    Objects that list their members hold no others, unless the document says so.
    """
    result: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: to_json_schema(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            result[key] = to_json_schema(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            result[key] = [to_json_schema(item) for item in value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            if value:
                result[key] = schema[key.replace("exclusiveM", "m")]
        elif key not in ("nullable", "example", "discriminator"):
            result[key] = value
    if "properties" in result:
        result.setdefault("additionalProperties", False)
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") else result


def answer_of(response: httpx.Response) -> Answer:
    """A response of httpx in the shape that `check` takes."""
    return Answer(response.status_code, dict(response.headers), response.content)
