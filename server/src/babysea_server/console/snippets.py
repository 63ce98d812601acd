"""The same call for a terminal, for Python and for the command line, ready to be pasted."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

from babysea_server.catalog.types import Model

#: Stands where the reader's key belongs.
KEY = "bye_your_key"
_PREFIX = "generation_"
_PROMPT = f"{_PREFIX}prompt"
_AUDIO = f"{_PREFIX}generate_audio"
#: Inputs with an option of their own in `babysea image` and `babysea video`; the others are `-i name=value`.
_OPTIONS = {
    f"{_PREFIX}{name}": f"--{option}"
    for name, option in (
        ("ratio", "ratio"),
        ("output_format", "format"),
        ("output_number", "number"),
        ("resolution", "resolution"),
        ("duration", "duration"),
        ("provider_order", "provider-order"),
    )
}
#: Inputs that `-i` takes as text whatever they look like.
_TEXTS = frozenset({_PROMPT, f"{_PREFIX}input_file_last_content"})


class Snippets(msgspec.Struct, frozen=True):
    """One request in four spellings."""

    json: str
    """The body alone."""
    curl: str
    python: str
    cli: str


def snippets(model: Model, body: Mapping[str, Any], origin: str) -> Snippets:
    """How a request is made.

    Args:
        body: as it is sent; its names are fields of the model or the provider order.
        origin: scheme and authority of the region's API.
    """
    document = json.dumps(body, ensure_ascii=False, indent=2)
    return Snippets(
        document,
        _curl(model, document, origin),
        _python(model, body, origin),
        _cli(model, body, origin),
    )


def _curl(model: Model, document: str, origin: str) -> str:
    lines = [
        f"curl -X POST {shlex.quote(f'{origin}/v1/generate/{model.media}/{model.identifier}')}",
        f"-H {shlex.quote(f'Authorization: Bearer {KEY}')}",
        f"-H {shlex.quote('Content-Type: application/json')}",
        f"-d {shlex.quote(document)}",
    ]
    return " \\\n  ".join(lines)


def _python(model: Model, body: Mapping[str, Any], origin: str) -> str:
    fields = {name.removeprefix(_PREFIX): value for name, value in body.items() if name != _PROMPT}
    arguments = [_literal(model.identifier)]
    if _PROMPT in body:
        arguments.append(_literal(body[_PROMPT]))
    arguments += [f"{name}={_literal(value)}" for name, value in fields.items()]
    inside = "".join(f"        {each},\n" for each in arguments)
    return (
        "from babysea import BabySea\n\n"
        f"with BabySea(api_key={_literal(KEY)}, base_url={_literal(origin)}) as client:\n"
        f"    generation = client.generate_and_wait(\n{inside}    )\n"
        "    print(generation.urls)\n"
    )


def _literal(value: Any) -> str:
    # A JSON text is a Python text, in the quotes that the rest of the line has.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _cli(model: Model, body: Mapping[str, Any], origin: str) -> str:
    first = ["babysea", model.media, model.identifier]
    options: list[list[str]] = []
    for name, value in body.items():
        if name == _PROMPT and isinstance(value, str) and not value.startswith("-"):
            first.append(value)
        elif name in _OPTIONS and not isinstance(value, bool | list | dict):
            options.append([_OPTIONS[name], str(value)])
        elif name == _AUDIO and model.media == "video" and isinstance(value, bool):
            options.append(["--audio" if value else "--no-audio"])
        else:
            options.append(["-i", f"{name.removeprefix(_PREFIX)}={_argument(name, value)}"])
    lines = [shlex.join(first), *(shlex.join(option) for option in options)]
    lines.append(shlex.join(["--base-url", origin]))
    return f"BABYSEA_API_KEY={KEY} " + " \\\n  ".join(lines)


def _argument(name: str, value: Any) -> str:
    """A value as `-i` takes it: text as it stands, unless it would be read as JSON."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if name in _TEXTS:
        return value
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value, ensure_ascii=False)
