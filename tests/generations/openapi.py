"""Holding answers against the published document: status, headers, body; nothing missing and nothing extra."""

from collections.abc import Mapping
from typing import Any

import httpx
import jsonschema_rs
from tests.contract.asgi import Answer

Schema = dict[str, Any]

#: Headers of the connection and of browsers, and the timing that errors carry too: the document leaves them out.
_UNDOCUMENTED = frozenset(
    (
        *("content-type", "content-length", "cache-control", "x-content-type-options", "connection"),
        *("date", "server-timing"),
        *("access-control-allow-origin", "access-control-expose-headers"),
    )
)


class Published:
    """An OpenAPI 3.0.3 document as a judge of answers."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        components = document["components"]["schemas"]
        self._components = {name: to_json_schema(schema) for name, schema in components.items()}
        self._operations = {
            operation["operationId"]: operation
            for item in document["paths"].values()
            for operation in item.values()
        }
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

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
        if name.startswith("Error"):
            shown = response["content"][media_type]["examples"]
            assert answer.code in shown, f"{answer.code} is not documented for status {answer.status}"
            example = shown[answer.code]["value"]["error"]
            for member in ("type", "retryable"):
                assert answer.json["error"][member] == example[member]

    def _response(self, name: str) -> Mapping[str, Any]:
        responses: Mapping[str, Mapping[str, Any]] = self._document["components"]["responses"]
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
                schema = self._document["components"]["headers"][name]["schema"]
                text = answer.headers[lower]
                value = int(text) if schema["type"] == "integer" else text
                assert jsonschema_rs.is_valid(to_json_schema(schema), value), f"{name}: {text}"

    def _validator(self, name: str, schema: Schema) -> jsonschema_rs.Draft202012Validator:
        if name not in self._validators:
            whole = {**to_json_schema(schema), "components": {"schemas": self._components}}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._validators[name]


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
