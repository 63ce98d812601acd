"""Schemas of the wire's structs, in the dialect of OpenAPI 3.0.3.

msgspec writes JSON Schema 2020-12; 3.0.3 is an older relative: `nullable` instead of a null type, one
`example` instead of `examples`, no `const`, boolean exclusive bounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

_NULL = {"type": "null"}
_JSON_TYPES: Sequence[tuple[type, str]] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
)


def reference(name: str) -> dict[str, str]:
    """A reference to the component schema `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def struct_schemas(types: Iterable[type[Struct]]) -> dict[str, dict[str, Any]]:
    """Component schemas of the given structs and of all they hold, by struct name, sorted."""
    _, components = msgspec.json.schema_components(list(types), ref_template="#/components/schemas/{name}")
    return {name: to_openapi(components[name]) for name in sorted(components)}


def to_openapi(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema of msgspec as an OpenAPI 3.0.3 schema object."""
    if "anyOf" in schema:
        return _union(schema)
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "examples":
            result["example"] = value[0]
        elif key == "const":
            result["enum"] = [value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            result[key.replace("exclusiveM", "m")] = value
            result[key] = True
        elif key == "properties":
            result[key] = {name: to_openapi(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            result[key] = to_openapi(value)
        elif key != "propertyNames" and (key != "required" or value):  # an empty `required` is refused
            result[key] = value
    if "enum" in result and "type" not in result:
        result["type"] = _type_of(result["enum"])
    return result


def _union(schema: Mapping[str, Any]) -> dict[str, Any]:
    rest = to_openapi({key: value for key, value in schema.items() if key != "anyOf"})
    branches = [to_openapi(branch) for branch in schema["anyOf"] if branch != _NULL]
    types = {branch.get("type") for branch in branches}
    if types == {"integer", "number"}:
        branches = [branch for branch in branches if branch["type"] == "number"]
    nullable = _NULL in schema["anyOf"]
    if len(branches) > 1:
        # `nullable` counts only beside a `type`, so it stands in a branch.
        if nullable:
            branches[0]["nullable"] = True
        return {**rest, "anyOf": branches}
    (branch,) = branches
    if nullable:
        if "$ref" in branch:
            branch = {"type": "object", "allOf": [branch]}
        elif "enum" in branch:
            branch["enum"] = [*branch["enum"], None]
        branch["nullable"] = True
    elif "$ref" in branch and rest:
        branch = {"allOf": [branch]}
    return {**branch, **rest}


def _type_of(values: Sequence[Any]) -> str:
    for kind, name in _JSON_TYPES:
        if all(isinstance(value, kind) for value in values):
            return name
    raise ValueError(f"an enumeration of mixed types has no OpenAPI type: {values!r}")
