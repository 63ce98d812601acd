"""JSON read into frozen dataclasses: what the answers of the API and the events of webhooks have in common."""

import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar, Union, get_args, get_origin

Credits = int | float  # as JSON writes them; 1 credit = 1 USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A JSON object; `extra` keeps the members that have no name in this version."""

    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


Kind = TypeVar("Kind", bound=Record)


def read_record(kind: type[Kind], value: Any, name: str, **given: Any) -> Kind:
    """The object `value` as a `kind`; `given` are fields that do not come from it. `name` is its path in the body.

    Raises:
        ValueError: a member is missing or of the wrong type; the message names it and quotes nothing of it.
    """
    if not isinstance(value, dict):
        raise _wrong(value, name)
    known = {one.name: one for one in fields(kind) if one.name != "extra" and one.name not in given}
    values = {
        key: read(one.type, value.get(key), f"{name}.{key}" if name else key)
        for key, one in known.items()
        # One that has to be there is read as null, and refused.
        if key in value or (one.default is MISSING and one.default_factory is MISSING)
    }
    return kind(**values, **given, extra={key: one for key, one in value.items() if key not in known})


def read(kind: Any, value: Any, name: str) -> Any:
    """The value as one of the types that fields have here.

    Raises:
        ValueError: it is of another type.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_either(get_args(kind), value, name)
    if origin is tuple and isinstance(value, list):
        return tuple(read(get_args(kind)[0], item, name) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {key: read(get_args(kind)[1], item, f"{name}.{key}") for key, item in value.items()}
    if kind is datetime:
        return read_time(read(str, value, name), name)
    if isinstance(kind, type) and issubclass(kind, Record):
        return read_record(kind, value, name)
    accepted = (int, float) if kind is float else kind
    if isinstance(kind, type) and isinstance(value, accepted) and isinstance(value, bool) == (kind is bool):
        return value
    raise _wrong(value, name)


def _read_either(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not types.NoneType]
    if len(rest) == 1:
        return read(rest[0], value, name)  # whose message is more exact
    for kind in rest:
        with suppress(ValueError):
            return read(kind, value, name)
    raise _wrong(value, name)


def read_time(text: str, name: str) -> datetime:
    """An RFC 3339 time, which is aware.

    Raises:
        ValueError: it is none.
    """
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time
    raise ValueError(f"{name} is not an RFC 3339 time")


def _wrong(value: Any, name: str) -> ValueError:
    return ValueError(f"{name} is {'missing' if value is None else 'of the wrong type'}")
