"""Path and query parameters, read as the OpenAPI document describes them.

The schemas of the document are compiled once into small readers; a request then costs one call per
parameter it carries.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from babysea_server.contract.rejection import rejection, shown

MAX_QUERY_BYTES = 2048

_INT_RANGES = {"int32": (-(2**31), 2**31 - 1)}
_INT64 = (-(2**63), 2**63 - 1)
#: The most digits of an int64; a longer text is out of any range and is never converted.
_MAX_DIGITS = 19
_BOOLEANS = {"true": True, "false": False}
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f]")

Reader = Callable[[str], Any]
"""Turns a parameter's text into its value. Raises ValueError when it is not what the schema says."""


class ParameterRule(msgspec.Struct, frozen=True):
    """One compiled parameter: its reader, and its schema in the words of a rejection."""

    name: str
    read: Reader
    allowed: Mapping[str, Any]
    sentence: str


def compile_parameter(parameter: Mapping[str, Any]) -> ParameterRule:
    """The rule of one OpenAPI parameter object (`integer`, `boolean` or `string`, without `$ref`).

    Raises:
        ValueError: a schema of another type, which the firewall could not check.
    """
    name, schema = parameter["name"], parameter["schema"]
    kind = schema["type"]
    if kind == "integer":
        least, most = _INT_RANGES.get(schema.get("format", ""), _INT64)
        least, most = schema.get("minimum", least), schema.get("maximum", most)
        allowed = {"type": "integer", "minimum": least, "maximum": most}
        sentence = f"an integer from {least} to {most}, in digits only"
        return ParameterRule(name, _integer_reader(least, most), allowed, sentence)
    if kind == "boolean":
        return ParameterRule(name, _read_boolean, {"enum": list(_BOOLEANS)}, "true or false")
    if kind == "string":
        return _string_rule(name, schema)
    raise ValueError(f"parameter {name}: the firewall cannot check a schema of type {kind!r}")


def read_path_value(rule: ParameterRule, text: str) -> str:
    """The value of a path parameter.

    Raises:
        ApiError: BSE1010, rule `invalid_path_parameter`.
    """
    try:
        value: str = rule.read(text)
    except ValueError:
        raise rejection(
            "invalid_path_parameter",
            f"path.{rule.name}",
            f"{shown(text)} in the path is not {rule.sentence}.",
            rule.allowed,
        ) from None
    return value


def read_query(
    query: bytes, rules: Mapping[str, ParameterRule], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The typed values of a query string, with the documented defaults of what is absent.

    Raises:
        ApiError: BSE1010: malformed, unknown, repeated, blank, ill-typed or out of range.
    """
    values: dict[str, Any] = {}
    if query:
        if len(query) > MAX_QUERY_BYTES:
            raise rejection(
                "malformed_query",
                "query",
                f"The query string is longer than {MAX_QUERY_BYTES} bytes.",
                {"max_bytes": MAX_QUERY_BYTES},
            )
        for pair in query.split(b"&"):
            _read_pair(pair, rules, values)
    for name, default in defaults.items():
        values.setdefault(name, default)
    return values


def _read_pair(pair: bytes, rules: Mapping[str, ParameterRule], values: dict[str, Any]) -> None:
    raw_name, _, raw_text = pair.partition(b"=")
    name, text = _decode(raw_name, list(rules)), _decode(raw_text, list(rules))
    rule = rules.get(name)
    if rule is None:
        expected = f"it takes {', '.join(rules)}" if rules else "it takes none"
        raise rejection(
            "unknown_query_parameter",
            "query",
            f"The operation has no query parameter {shown(name)}; {expected}.",
            list(rules),
        )
    if name in values:
        raise rejection(
            "repeated_query_parameter",
            f"query.{name}",
            f"The query parameter {name} is given more than once.",
            rule.allowed,
        )
    try:
        values[name] = rule.read(text)
    except ValueError:
        raise rejection(
            "invalid_query_parameter",
            f"query.{name}",
            f"The query parameter {name} must be {rule.sentence}; it is {shown(text)}.",
            rule.allowed,
        ) from None


def _decode(raw: bytes, allowed: list[str]) -> str:
    """One name or value of a query string: `+` is a space, escapes are UTF-8."""
    plain = raw.replace(b"+", b" ")
    try:
        if b"%" in plain:
            if _BAD_ESCAPE.search(plain):
                raise ValueError("an escape without two hexadecimal digits")
            plain = unquote_to_bytes(plain)
        text = plain.decode("utf-8")
        if _CONTROL.search(text):
            raise ValueError("a control character")
    except ValueError:
        raise rejection(
            "malformed_query",
            "query",
            "The query string is not percent-encoded UTF-8 without control characters.",
            allowed,
        ) from None
    return text


def _integer_reader(least: int, most: int) -> Reader:
    def read(text: str) -> int:
        digits = text[1:] if text[:1] == "-" else text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
            raise ValueError("not an integer")
        value = int(text)
        if not least <= value <= most:
            raise ValueError("out of range")
        return value

    return read


def _read_boolean(text: str) -> bool:
    value = _BOOLEANS.get(text)
    if value is None:
        raise ValueError("not a boolean")
    return value


def _string_rule(name: str, schema: Mapping[str, Any]) -> ParameterRule:
    if "enum" in schema:
        values = tuple(schema["enum"])
        allowed = {"enum": list(values)}
        return ParameterRule(name, _enum_reader(frozenset(values)), allowed, " or ".join(values))
    allowed = {key: schema[key] for key in ("format", "pattern", "minLength", "maxLength") if key in schema}
    read = _text_reader(
        re.compile(schema.get("pattern", ".*")), schema.get("minLength", 1), schema.get("maxLength", 255)
    )
    if schema.get("format") == "uuid":
        return ParameterRule(name, lambda text: read(text).lower(), allowed, "a UUID")
    return ParameterRule(name, read, allowed, f"a text that matches {schema.get('pattern', 'its schema')}")


def _enum_reader(values: frozenset[str]) -> Reader:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError("not one of the values")
        return text

    return read


def _text_reader(pattern: re.Pattern[str], shortest: int, longest: int) -> Reader:
    def read(text: str) -> str:
        if not shortest <= len(text) <= longest or pattern.fullmatch(text) is None:
            raise ValueError("does not match")
        return text

    return read
