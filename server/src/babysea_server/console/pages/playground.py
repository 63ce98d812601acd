"""Playground: try a model. The browser itself calls the API with the reader's key, which never comes here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from babysea_server.accounts.roles import Action
from babysea_server.catalog.normalise import GenerationRequest, normalise
from babysea_server.catalog.schema import PROVIDER_ORDER, example_body
from babysea_server.catalog.types import Media, Model
from babysea_server.console import templating
from babysea_server.console.forms import Form
from babysea_server.console.model_view import inputs_of, least_of
from babysea_server.console.pages.models import ModelRow, find_model, model_rows
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.console.snippets import KEY, snippets
from babysea_server.errors import ERRORS, ApiError
from babysea_server.kit.json import InvalidJsonError, loads

_CODE = re.compile("`([^`]*)`")
_MEDIA: Sequence[tuple[Media, str]] = (("image", "Image"), ("video", "Video"))
_SPELLINGS = (("json", "JSON"), ("curl", "curl"), ("python", "Python"), ("cli", "CLI"))
_TRY_AGAIN = (
    "Send the same request again: it carries the same Idempotency-Key, so nothing is bought twice. "
    "What is under way is asked for again by itself."
)


def routes() -> Sequence[Route]:
    """The routes of this page."""
    use = Action.PLAYGROUND_USE
    return [
        Route("GET", "/playground", use, _show),
        Route("GET", "/playground/fields", use, _fields),
        Route("POST", "/playground/preview", use, _preview),
    ]


async def _show(page: PageRequest) -> Response:
    rows = await model_rows(page.region)
    chosen = _chosen(rows, page.query.get("model"), page.query.get("type"))
    return await page.render(
        "playground.html",
        rows=rows,
        chosen=chosen,
        media=_MEDIA,
        spellings=_SPELLINGS,
        data={
            "origin": page.region.api_origin or "",
            "key": KEY,
            "remedies": {code: _CODE.sub("“\\1”", spec.remedy) for code, spec in ERRORS.items()}
            | {"No answer": _TRY_AGAIN},
            "first": {
                media: first.model.identifier
                for media, _ in _MEDIA
                if (first := _first(rows, media)) is not None
            },
        },
        **(_form_of(chosen.model) if chosen else {}),
    )


def _chosen(rows: Sequence[ModelRow], identifier: str | None, media: str | None) -> ModelRow | None:
    """The model that the address names, else one to begin with."""
    named = next((row for row in rows if row.model.identifier == identifier), None)
    return named or _first(rows, "video" if media == "video" else "image") or next(iter(rows), None)


def _first(rows: Sequence[ModelRow], media: Media) -> ModelRow | None:
    """The cheapest model that can run here: what somebody who only looks should try."""
    able = [row for row in rows if row.model.media == media]
    return min(able, key=lambda row: (not row.runs, least_of(row.model)), default=None)


async def _fields(page: PageRequest) -> Response:
    """The form of one model, for the script to put in."""
    model = find_model(page.region.catalog, page.query.get("model", ""))
    return await page.render("playground/fields.html", **_form_of(model))


def _form_of(model: Model) -> dict[str, Any]:
    inputs = inputs_of(model)
    first = [each for each in inputs if each.is_common or each.spec.required]
    return {
        "model": model,
        "first": first,
        "more": [each for each in inputs if each not in first],
        "order": PROVIDER_ORDER,
    }


async def _preview(page: PageRequest) -> Response:
    """What a request would cost, whether it would be taken, and how it is made here and elsewhere."""
    model = find_model(page.region.catalog, page.form.text("model"))
    body = body_of(model, page.form)
    told: dict[str, Any] = {"price": "", "field": None, "message": None}
    try:
        told |= _priced(page, _completed(model, body))
    except ApiError as error:
        field = (error.details or {}).get("field")
        told |= {"text": "No estimate for this request.", "field": field, "message": error.message}
    spelled = snippets(model, body, page.api_origin)
    told["code"] = {name: getattr(spelled, name) for name, _ in _SPELLINGS}
    told["path"] = f"/v1/generate/{model.media}/{model.identifier}"
    told["body"] = spelled.json
    return JSONResponse(told)


def body_of(model: Model, form: Form) -> dict[str, Any]:
    """The request that a form of the model asks for: what differs from what the model does anyway.

    A text that is no value of its field's type stays as it is, for the API to refuse.
    """
    body: dict[str, Any] = {}
    for each in inputs_of(model):
        name = each.spec.name
        text = form.raw(name).replace("\r\n", "\n")
        if each.widget == "check":
            text = "true" if form.has(name) else "false"
        if text.strip() and text != each.value:
            body[name] = _value(each.spec.type, text)
    order = form.text(PROVIDER_ORDER)
    return body | ({PROVIDER_ORDER: order} if order not in ("", "fastest") else {})


def _value(type: str, text: str) -> Any:
    if type in ("url-array", "string-array"):
        return [line.strip() for line in text.split("\n") if line.strip()]
    if type in ("integer", "number", "boolean", "object"):
        try:
            return loads(text.encode())
        except InvalidJsonError:
            pass
    return text


def _completed(model: Model, body: Mapping[str, Any]) -> GenerationRequest:
    """The request with something in place of what is not filled in yet: nobody is told off while they type.

    Raises:
        ApiError: as for the real request.
    """
    example = example_body(model)
    missing = {
        name: example[name] for name, spec in model.fields.items() if spec.required and name not in body
    }
    return normalise(model, {**missing, **body})


def _priced(page: PageRequest, request: GenerationRequest) -> dict[str, Any]:
    cost, balance = request.cost_micro, page.account.credit_balance
    price = templating.credits(cost, None)
    text = f"Estimate: {price}."
    if request.rate_micro_per_second is not None:
        text = f"Up to {price}, by the length it turns out to have."
    if cost > balance:
        text += f" The balance of {templating.credits(balance)} does not cover it."
    elif cost:
        text += f" The balance covers {balance // cost:,} of these."
    return {"price": price, "text": text}
