"""The API reference of one region as a page of HTML, made from its OpenAPI document and nothing else.

There is no script in it. Styles stand in the page, allowed by their hash, so that a saved page looks the same.
"""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from babysea_server.contract.reference.fields import Field, Schemas
from babysea_server.errors import ErrorSpec

Document = Mapping[str, Any]

_TOKEN = re.compile(
    r'(?P<key>"[^"\\]*"(?=: ))|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>-?\d[\d.e+-]*|true|false|null)'
)


class ReferencePage(NamedTuple):
    """A page, and the Content-Security-Policy under which it shows as it should."""

    html: bytes
    policy: str


class _Answer(msgspec.Struct, frozen=True):
    name: str
    description: str
    fields: tuple[Field, ...]


class _Operation(msgspec.Struct, frozen=True):
    id: str
    method: str
    path: str
    summary: str
    scope: str
    parameters: Mapping[str, Sequence[Field]]
    takes_body: bool
    answers: Sequence[_Answer]
    paged: bool
    errors: Sequence[str]
    request: str
    example: str


class _Model(msgspec.Struct, frozen=True):
    identifier: str
    slug: str
    title: str
    description: str
    fields: tuple[Field, ...]
    example: str


def render_reference(document: Document) -> ReferencePage:
    """The page of the region whose document this is."""
    schemas = Schemas(document["components"]["schemas"])
    operations = list(_operations(document, schemas))
    errors = sorted(_errors(document), key=lambda error: error.code)
    answered = {code for _, operation in operations for code in operation.errors}
    common = set.intersection(*(set(operation.errors) for _, operation in operations))
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    html = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            style=style,
            region=document["x-babysea-region"],
            version=document["info"]["version"],
            base=document["servers"][0]["url"],
            groups=[
                (tag, [operation for name, operation in operations if name == tag["name"]])
                for tag in document["tags"]
            ],
            scopes=_scopes(operations),
            headers=document["components"]["headers"],
            errors={
                "request": [error for error in errors if error.code in answered],
                "generation": [error for error in errors if error.code not in answered],
            },
            common=sorted(common),
            models=_models(document, schemas),
        )
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return ReferencePage(html.encode(), policy)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "highlight": _highlight}
    return environment


def _prose(text: str) -> Markup:
    """Text in which backticks mark code."""
    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def _highlight(text: str) -> Markup:
    """JSON with its keys, texts and words marked."""
    parts: list[Markup] = []
    end = 0
    for match in _TOKEN.finditer(text):
        marked = Markup('<span class="{}">{}</span>').format(str(match.lastgroup)[0], match[0])
        parts += [escape(text[end : match.start()]), marked]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _operations(document: Document, schemas: Schemas) -> Iterator[tuple[str, _Operation]]:
    """Every operation with its tag."""
    for path, item in document["paths"].items():
        for method, spec in item.items():
            yield spec["tags"][0], _operation(document, schemas, method.upper(), path, spec)


def _operation(document: Document, schemas: Schemas, method: str, path: str, spec: Document) -> _Operation:
    parameters: dict[str, list[Field]] = {}
    for parameter in spec.get("parameters", ()):
        parameters.setdefault(parameter["in"], []).append(schemas.parameter(parameter))
    content = spec["responses"]["200"]["content"]["application/json"]
    envelope = content["schema"]["properties"]
    return _Operation(
        id=spec["operationId"].replace("_", "-"),
        method=method,
        path=path,
        summary=spec["summary"],
        scope=spec["x-babysea-scope"],
        parameters=parameters,
        takes_body="requestBody" in spec,
        answers=[
            _Answer(variant["title"], variant.get("description", ""), schemas.fields(variant))
            for variant in schemas.variants(envelope["data"])
        ],
        paged="total" in envelope,
        errors=spec["x-babysea-errors"],
        request=_curl(document["servers"][0]["url"], method, path, spec),
        example=_pretty(content["example"]),
    )


def _curl(base: str, method: str, path: str, spec: Document) -> str:
    """The operation's example as a command of the shell."""
    examples = [parameter for parameter in spec.get("parameters", ()) if "example" in parameter]
    for parameter in examples:
        path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    query = "&".join(f"{each['name']}={each['example']}" for each in examples if each["in"] == "query")
    target = shlex.quote(f"{base}{path}{'?' if query else ''}{query}")
    lines = [f"curl {'' if method == 'GET' else f'-X {method} '}{target}"]
    lines.append('-H "Authorization: Bearer $BABYSEA_API_KEY"')
    lines += [f'-H "{each["name"]}: {each["example"]}"' for each in examples if each["in"] == "header"]
    if "requestBody" in spec:
        shown = spec["requestBody"]["content"]["application/json"].get("examples", {})
        body: Any = next((example["value"] for example in shown.values()), {})
        lines += ['-H "Content-Type: application/json"', f"-d {shlex.quote(_pretty(body))}"]
    return " \\\n  ".join(lines)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _scopes(operations: Sequence[tuple[str, _Operation]]) -> dict[str, list[_Operation]]:
    scopes: dict[str, list[_Operation]] = {}
    for _, operation in operations:
        scopes.setdefault(operation.scope, []).append(operation)
    return dict(sorted(scopes.items()))


def _errors(document: Document) -> Iterator[ErrorSpec]:
    for name, response in document["components"]["responses"].items():
        for code, example in response["content"]["application/json"]["examples"].items():
            error = example["value"]["error"]
            yield ErrorSpec(
                code=code,
                type=error["type"],
                status=int(name.removeprefix("Error")),
                retryable=error["retryable"],
                when=example["summary"],
                remedy=example["description"],
            )


def _models(document: Document, schemas: Schemas) -> dict[str, dict[str, list[_Model]]]:
    """By media, then by lab."""
    media: dict[str, dict[str, list[_Model]]] = {}
    for schema in document["components"]["schemas"].values():
        if "x-babysea-model" in schema:
            identifier = schema["x-babysea-model"]
            labs = media.setdefault(schema["x-babysea-media"], {})
            labs.setdefault(identifier.partition("/")[0], []).append(_model(identifier, schema, schemas))
    return dict(sorted(media.items()))


def _model(identifier: str, schema: Document, schemas: Schemas) -> _Model:
    return _Model(
        identifier=identifier,
        slug=identifier.replace("/", "-"),
        title=schema.get("title", identifier).removesuffix(f" ({identifier})"),
        description=schema.get("description", ""),
        fields=schemas.fields(schema),
        example=_pretty(schema["example"]),
    )
