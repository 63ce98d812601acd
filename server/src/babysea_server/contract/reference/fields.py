"""Schemas of the document as lists of fields, as a reader wants them."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Schema = Mapping[str, Any]

_NAMED_FORMATS = {"uuid": "UUID", "date-time": "timestamp", "uri": "URL"}
#: Bounds that only say that every JSON reader holds the number exactly.
_ANY_INTEGER = 2**53 - 1
#: Where a schema refers to itself, or nearly: no reader follows further.
_DEPTH_MAX = 5


class Field(msgspec.Struct, frozen=True):
    """One member of an object, or one parameter."""

    name: str
    type: str
    required: bool
    description: str
    notes: tuple[str, ...]
    """What its value must be: choices, bounds, default. Pieces of code stand in backticks."""
    fields: tuple["Field", ...] = ()


class Schemas:
    """The component schemas of one document."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components

    def fields(self, schema: Schema, depth: int = 0) -> tuple[Field, ...]:
        """The members of an object schema, as they are ordered there."""
        whole = self._resolve(schema)
        required = set(whole.get("required", ()))
        return tuple(
            self._field(name, member, name in required, depth)
            for name, member in whole.get("properties", {}).items()
        )

    def parameter(self, parameter: Mapping[str, Any]) -> Field:
        """A parameter as a field."""
        schema = parameter["schema"]
        return Field(
            parameter["name"],
            self._type(schema),
            parameter["required"],
            parameter["description"],
            tuple(_notes(schema)),
        )

    def variants(self, schema: Schema) -> list[Schema]:
        """The schemas of which a value has one."""
        return [self._resolve(branch) for branch in schema.get("anyOf", [schema])]

    def _field(self, name: str, schema: Schema, required: bool, depth: int) -> Field:
        whole = self._resolve(schema)
        inner = self._resolve(_element(whole))
        return Field(
            name,
            self._type(schema),
            required,
            schema.get("description", whole.get("description", "")),
            tuple(_notes(whole)),
            self.fields(inner, depth + 1) if depth < _DEPTH_MAX else (),
        )

    def _resolve(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            return self._components[schema["$ref"].rpartition("/")[2]]
        if "allOf" in schema:  # how 3.0.3 puts something beside a reference
            return {**self._resolve(schema["allOf"][0]), **schema}
        return schema

    def _type(self, schema: Schema) -> str:
        whole = self._resolve(schema)
        if "anyOf" in whole:
            return " or ".join(self._type(branch) for branch in whole["anyOf"])
        name = str(whole.get("type", "any"))
        if name == "array":
            name = f"array of {self._type(whole['items'])}"
        elif isinstance(values := whole.get("additionalProperties"), Mapping):
            name = f"map to {self._type(values)}"
        name = _NAMED_FORMATS.get(whole.get("format", ""), name)
        return f"{name} or null" if whole.get("nullable") else name


def _element(schema: Schema) -> Schema:
    """What an array or a map holds, however deep; the schema itself if it is neither."""
    if "items" in schema:
        return _element(schema["items"])
    values = schema.get("additionalProperties")
    return _element(values) if isinstance(values, Mapping) else schema


def _notes(schema: Schema) -> Iterator[str]:
    choices = [choice for choice in schema.get("enum", ()) if choice is not None]
    if len(choices) == 1:
        yield f"Always `{_shown(choices[0])}`."
    elif choices:
        yield f"One of {', '.join(f'`{_shown(choice)}`' for choice in choices)}."
    low, high = schema.get("minimum", -_ANY_INTEGER), schema.get("maximum", _ANY_INTEGER)
    if low > -_ANY_INTEGER and high < _ANY_INTEGER:
        yield f"{low} to {high}." if low != high else f"Only {low}."
    elif low > -_ANY_INTEGER:
        yield f"At least {low}."
    elif high < _ANY_INTEGER:
        yield f"At most {high}."
    if "maxLength" in schema:
        yield f"At most {schema['maxLength']} characters."
    if "maxItems" in schema:
        count = schema["maxItems"]
        yield f"At most {count} {'item' if count == 1 else 'items'}."
    if (pattern := schema.get("pattern", r"\S")) != r"\S" and "format" not in schema:
        yield f"Matches `{pattern}`."
    if "default" in schema:
        yield f"Default `{_shown(schema['default'])}`."


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
