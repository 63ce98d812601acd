"""The reference page: complete, sound HTML that needs nothing but itself, and true of the server it describes."""

import base64
import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support import Customer, Deployment

from babysea_server.app.shared import openapi_documents
from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.contract.openapi import ModelBody, build_document
from babysea_server.contract.operations import COMMON_ERRORS, OPERATIONS
from babysea_server.contract.reference.fields import Schemas
from babysea_server.contract.reference.page import ReferencePage, render_reference
from babysea_server.errors import ERRORS
from babysea_server.settings import load_settings

_VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})
_PHRASING = frozenset({"p", "h1", "h2", "h3", "h4", "pre", "dt", "summary", "figcaption"})
_BLOCKS = frozenset(
    {"p", "h1", "h2", "h3", "h4", "pre", "div", "section", "ul", "dl", "table", "figure", "nav", "details"}
)


class Page(HTMLParser):
    """A page taken apart; every tag must be closed by its own end tag, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks_in_phrases: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), f"an attribute of <{tag}> stands there twice"
        if tag in _BLOCKS and _PHRASING.intersection(self._open):
            self.blocks_in_phrases.append(f"<{tag}> in {self._open}")
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element, at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def values(self, name: str, tag: str | None = None) -> list[str]:
        """The values of one attribute, in order."""
        found = [attributes.get(name) for kind, attributes in self.elements if tag in (None, kind)]
        return [value for value in found if value is not None]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="module")
def document(catalog: Catalog) -> dict[str, Any]:
    settings = load_settings({}, overrides={"data_dir": ".data", "port": 8000})
    return openapi_documents(settings, catalog, ["us"])["us"]


@pytest.fixture(scope="module")
def rendered(document: dict[str, Any]) -> ReferencePage:
    return render_reference(document)


@pytest.fixture(scope="module")
def page(rendered: ReferencePage) -> Page:
    return Page(rendered.html.decode())


def test_the_page_is_one_sound_document(rendered: ReferencePage, page: Page) -> None:
    assert rendered.html.startswith(b'<!DOCTYPE html>\n<html lang="en">')
    assert page.blocks_in_phrases == []
    assert page.texts["title"] == ["BabySea API reference · us"]


def test_headings_descend_one_step_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_operation_is_described_with_its_path_scope_request_and_answer(
    page: Page, document: dict[str, Any]
) -> None:
    text = " ".join(page.texts["code"])
    ids = page.values("id")
    for row in OPERATIONS:
        assert row.id.replace("_", "-") in ids
        assert row.path in text
        assert row.scope in text
        assert any(row.summary in heading for heading in page.texts["h3"])
    assert page.texts["figcaption"].count("Request") == len(OPERATIONS)
    assert page.texts["figcaption"].count("Answer") == len(OPERATIONS)


def test_every_error_code_has_its_row(page: Page) -> None:
    rows = [attributes["id"] for tag, attributes in page.elements if tag == "tr" and "id" in attributes]
    assert sorted(str(row) for row in rows) == sorted(ERRORS)


def test_every_model_has_its_fields_and_an_example(page: Page, catalog: Catalog) -> None:
    ids = page.values("id", "details")
    assert ids == [f"model-{name.replace('/', '-')}" for name in sorted_models(catalog)]
    assert page.texts["figcaption"].count("Body") == len(catalog.models)
    names = Counter(page.texts["code"])
    for field in {name for model in catalog.models.values() for name in model.fields}:
        assert names[field] >= sum(field in model.fields for model in catalog.models.values())


def sorted_models(catalog: Catalog) -> list[str]:
    """Images first, then videos; each by lab and name."""
    return sorted(catalog.models, key=lambda name: (catalog.models[name].media, name.partition("/")[0], name))


def test_every_link_leads_to_an_anchor_that_stands_there_once_or_to_the_document(page: Page) -> None:
    ids = page.values("id")
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    links = page.values("href")
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    labels = page.values("aria-labelledby")
    assert set(labels) <= set(ids)


def test_the_page_has_no_script_no_handler_and_asks_nobody_for_anything(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "iframe", "object", "embed", "form", "base", "link", "img"})
    names = {name for _, attributes in page.elements for name in attributes}
    assert not any(name.startswith("on") or name in ("style", "src", "srcset") for name in names)
    (style,) = page.texts["style"]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_exactly_the_styles_of_the_page(rendered: ReferencePage, page: Page) -> None:
    policy = dict(part.split(" ", 1) for part in rendered.policy.split("; "))
    (style,) = page.texts["style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_what_a_catalog_says_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>`</code><b>"
    schema = {
        "type": "object",
        "title": evil,
        "description": evil,
        "properties": {evil: {"type": "string", "enum": [evil, "x"], "default": evil, "description": evil}},
    }
    model = ModelBody("a/b", "image", schema, {"generation_prompt": evil})
    html = render_reference(build_document("us", server_url="https://x.example", models=[model])).html
    assert b"<script" not in html
    assert not any(tag == "script" for tag, _ in Page(html.decode()).elements)


def test_the_page_is_small_enough_to_send(rendered: ReferencePage) -> None:
    assert len(rendered.html) < 1_000_000


def test_types_and_bounds_are_told_in_words() -> None:
    part = {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}
    schemas = Schemas({"Part": part})
    fields = schemas.fields(
        {
            "required": ["id"],
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "kind": {"type": "string", "enum": ["a", "b", None], "nullable": True},
                "only": {"type": "string", "enum": ["x"]},
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}, "maxItems": 1},
                "by_name": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/components/schemas/Part"},
                },
                "price": {"anyOf": [{"type": "number", "nullable": True}, {"type": "object"}]},
                "seed": {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1, "default": 0},
                "steps": {"type": "integer", "minimum": 1, "maximum": 8},
                "flag": {"type": "boolean", "default": False},
            },
        }
    )
    assert [(field.name, field.type, field.notes) for field in fields] == [
        ("id", "UUID", ()),
        ("kind", "string or null", ("One of `a`, `b`.",)),
        ("only", "string", ("Always `x`.",)),
        ("parts", "array of object", ("At most 1 item.",)),
        ("by_name", "map to object", ()),
        ("price", "number or null or object", ()),
        ("seed", "integer", ("Default `0`.",)),
        ("steps", "integer", ("1 to 8.",)),
        ("flag", "boolean", ("Default `false`.",)),
    ]
    assert [field.required for field in fields] == [True] + [False] * 8
    assert [field.name for field in fields if field.fields] == ["parts", "by_name"]


# ------------------------------------------------------------------------------- true of the server


def commands(page: Page) -> Iterator[tuple[str, str, dict[str, str], str | None]]:
    """Method, target, headers and body of each example request."""
    for text in page.texts["pre"]:
        words = shlex.split(text)
        if words[:1] != ["curl"]:
            continue
        target = next(word for word in words if word.startswith("http"))
        parts = urlsplit(target)
        options = list(pairwise(words))
        headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
        body = next((value for option, value in options if option == "-d"), None)
        method = next((value for option, value in options if option == "-X"), "POST" if body else "GET")
        yield method, f"{parts.path}?{parts.query}" if parts.query else parts.path, headers, body


async def test_every_example_request_is_one_that_the_server_serves(
    page: Page, deployment: Deployment, customer: Customer
) -> None:
    asked = list(commands(page))
    assert len(asked) >= len(OPERATIONS)
    for method, target, headers, body in asked:
        assert headers.pop("Authorization") == "Bearer $BABYSEA_API_KEY"
        response = await customer.request(method, target, headers=headers, content=body)
        code = response.json().get("error", {}).get("code")
        assert response.status_code == 200 or code == "BSE3001", f"{method} {target}: {response.text}"


async def test_a_running_server_shows_the_page_and_leads_there(deployment: Deployment) -> None:
    welcome = (await deployment.client.get("/")).json()
    response = await deployment.client.get(welcome["docs"])
    assert response.status_code == 200
    assert "API reference" in response.text
    assert (await deployment.client.get(welcome["openapi"])).status_code == 200


# ------------------------------------------------------------------------------- the codes of operations


def test_every_code_is_met_in_an_answer_or_in_a_failed_generation() -> None:
    answered = {error.code for row in OPERATIONS for error in (*COMMON_ERRORS, *row.errors)}
    rest = sorted(set(ERRORS) - answered)
    told = re.compile("BSE200[2-9]|BSE40(0[1-9]|10)|BSE5003|BSE5004")
    assert [code for code in rest if not told.fullmatch(code)] == []


def test_no_operation_tells_a_common_error_twice() -> None:
    for row in OPERATIONS:
        assert set(row.errors).isdisjoint(COMMON_ERRORS)
        assert len(set(row.errors)) == len(row.errors)
