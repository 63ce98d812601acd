"""What an answer looks like, written down so that a reader can hold it against the contract.

A shape is a predicate, a literal (a value that is the same), `[shape]` for a list of such, or a mapping of
members: exactly these, except that a name ending in `?` may be absent.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Shape = Any

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def anything(value: Any) -> bool:
    """Whatever it is."""
    return True


def text(value: Any) -> bool:
    """A string that says something."""
    return isinstance(value, str) and value != ""


def flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def count(value: Any) -> bool:
    """A whole number from zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def number(value: Any) -> bool:
    """A number from zero."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def money(value: Any) -> bool:
    """An amount of credits: at most six decimals."""
    return number(value) and round(value, 6) == value


def share(value: Any) -> bool:
    """A number from zero to one."""
    return number(value) and value <= 1


def uuid(value: Any) -> bool:
    """A UUID in lower case."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def moment(value: Any) -> bool:
    """RFC 3339 in UTC with milliseconds."""
    return isinstance(value, str) and _MOMENT.fullmatch(value) is not None and bool(parsed(value))


def link(value: Any) -> bool:
    """An absolute URL."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def maybe(shape: Shape) -> Callable[[Any], bool]:
    """The shape, or null."""
    return lambda value: value is None or not differences(value, shape)


def one_of(*values: Any) -> Callable[[Any], bool]:
    """One of these values."""
    return lambda value: value in values


def mapping(shape: Shape) -> Callable[[Any], bool]:
    """An object whose members all have one shape, whatever their names."""
    return lambda value: (
        isinstance(value, dict) and not any(differences(item, shape) for item in value.values())
    )


def either(*shapes: Shape) -> Callable[[Any], bool]:
    """One of several shapes."""
    return lambda value: any(not differences(value, shape) for shape in shapes)


def parsed(value: str) -> datetime:
    """A moment of the wire."""
    return datetime.fromisoformat(value)


def differences(value: Any, shape: Shape, at: str = "data") -> list[str]:
    """Where a value is not as its shape says; empty when it is."""
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return [f"{at} is not an object: {value!r}"]
        names = {name.removesuffix("?") for name in shape}
        required = {name for name in shape if not name.endswith("?")}
        found = [f"{at}.{name} is not in the contract" for name in value.keys() - names]
        found += [f"{at}.{name} is missing" for name in required - value.keys()]
        for name, member in shape.items():
            plain = name.removesuffix("?")
            if plain in value:
                found += differences(value[plain], member, f"{at}.{plain}")
        return found
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{at} is not a list: {value!r}"]
        return [
            fault
            for index, item in enumerate(value)
            for fault in differences(item, shape[0], f"{at}[{index}]")
        ]
    right = shape(value) if callable(shape) else value == shape and type(value) is type(shape)
    return [] if right else [f"{at} is {value!r}"]
