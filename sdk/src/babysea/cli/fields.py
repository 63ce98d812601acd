"""Inputs of models as they are written on a command line or in a table."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from babysea import LibraryModel
from babysea.cli.faults import CommandError

_PREFIX = "generation_"

#: These are text, whatever they look like.
_TEXTS = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        "prompt",
        "ratio",
        "output_format",
        "resolution",
        "input_file_last_content",
        "provider_order",
    )
)
_FILES = f"{_PREFIX}input_file"


def spelled(name: str) -> str:
    """A field's name as the API writes it."""
    name = name.strip()
    return name if name.startswith(_PREFIX) else f"{_PREFIX}{name}"


def value_of(name: str, text: str) -> Any:
    """The value of a field: JSON where the text is JSON, such as 7, true or ["a"], else the text."""
    if name in _TEXTS:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if name == _FILES and isinstance(value, str):
        return value.split()
    return value


def given(pairs: Iterable[str]) -> dict[str, Any]:
    """The fields of options `-i name=value`.

    Raises:
        CommandError: one has no name or no value, or comes twice.
    """
    fields: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name.strip() or not equals:
            raise CommandError(f"{pair!r} is not an input", "Write it as -i name=value.")
        name = spelled(name)
        if name in fields:
            raise CommandError(f"{name} is given twice")
        fields[name] = value_of(name, text)
    return fields


def merged(fields: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both, without what is None.

    Raises:
        CommandError: a field is in both.
    """
    named = {name: value for name, value in more.items() if value is not None}
    if twice := fields.keys() & named.keys():
        raise CommandError(f"{min(twice)} is given twice")
    return {**fields, **named}


def with_duration(model: LibraryModel | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with the shortest duration where a video's has to be chosen and was not."""
    durations = model.schema.generation_duration if model is not None else None
    if not durations or "generation_duration" in fields:
        return fields
    return {**fields, "generation_duration": min(durations)}


def estimated_by(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an estimate for these fields; what cannot be one is left for the server to refuse."""

    def one(name: str, *kinds: type) -> Any:
        value = fields.get(f"{_PREFIX}{name}")
        return value if type(value) in kinds else None

    return {
        "count": one("output_number", int) or 1,
        "duration": one("duration", int),
        "resolution": one("resolution", str),
        "audio": one("generate_audio", bool),
    }


def is_measured(model: LibraryModel | None) -> bool:
    """Whether a clip's length, and so its price, is known only afterwards."""
    return model is not None and model.model_type == "video" and not model.schema.generation_duration
