"""JSON in and out. In: strict, because the same bytes must mean the same to every reader. Out: msgspec."""

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from babysea_server.kit.clock import rfc3339

MAX_DEPTH = 16
_INT_LIMIT = 2**63
_SHOWN_MAX = 64


class InvalidJsonError(ValueError):
    """A document that is not JSON as this server accepts it; the message says why, for the sender."""


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown = name if len(name) <= _SHOWN_MAX else name[:_SHOWN_MAX] + "…"
                raise InvalidJsonError(f"the name {shown!r} appears twice in one object")
            seen.add(name)
    return result


def _no_constant(name: str) -> Any:
    raise InvalidJsonError(f"{name} is not a JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def loads(document: bytes) -> Any:
    """Decode one JSON document strictly.

    Refused beyond plain JSON errors: duplicate names, NaN and infinities (also as 1e999), integers
    beyond 64 bits, more than 16 levels, lone surrogates and NUL characters (PostgreSQL stores neither).

    Raises:
        InvalidJsonError: with a sentence for the sender.
    """
    try:
        value = _decoder.decode(document.decode("utf-8"))
    except InvalidJsonError:
        raise
    except UnicodeDecodeError as error:
        raise InvalidJsonError("the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise InvalidJsonError(f"the body is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer too long for int()
        raise InvalidJsonError("a number is out of range") from error
    _check(value, 0)
    return value


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -_INT_LIMIT <= value < _INT_LIMIT:
            raise InvalidJsonError("a number is out of range")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidJsonError("a number is out of range")
    else:
        if depth == MAX_DEPTH:
            raise InvalidJsonError(f"the body is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for name, item in value.items():
                _check_text(name)
                _check(item, depth + 1)
        else:
            for item in value:
                _check(item, depth + 1)


def _check_text(text: str) -> None:
    if text.isascii():
        if "\0" in text:
            raise InvalidJsonError("a string holds a NUL character")
        return
    if "\0" in text:
        raise InvalidJsonError("a string holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJsonError("a string holds a lone surrogate") from error


def _encode_unknown(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON form here")


_encoder = msgspec.json.Encoder(enc_hook=_encode_unknown)


def dumps(value: Any) -> bytes:
    """Encode to compact JSON: structs, UUIDs and enums are understood; moments use `moment()` first."""
    return _encoder.encode(value)


def fingerprint(value: Any) -> bytes:
    """SHA-256 over a canonical form: names sorted, numbers in one spelling (1.0 is 1), no white space."""
    return hashlib.sha256(msgspec.json.encode(_canonical(value), order="sorted")).digest()


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _INT_LIMIT:
        return int(value)
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def moment(value: datetime | None) -> str | None:
    """A moment as the wire spells it, or None."""
    return None if value is None else rfc3339(value)
