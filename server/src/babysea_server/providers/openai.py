"""OpenAI's Images API: each call answers with the pictures themselves.

A picture whose answer was lost is lost: OpenAI keeps no list of what it made and takes no id of ours, so nothing can
be reconciled. Its videos were shut down in September 2026, and there is nothing to poll, cancel or be called back for.
"""

import re
from collections.abc import Iterator
from typing import Any

from babysea_server.catalog.types import Traits
from babysea_server.providers.answers import Sign, at, document, json_request, number, refused, text, told
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Provider,
    Refused,
    Request,
)
from babysea_server.providers.mapping import native

_OUTPUTS_MAX = 10

_REFUSALS = (
    Sign(Failure.REFUSED_POLICY, 400, r"moderation_blocked|content_policy_violation|by the safety system"),
    # Under 429 as well as under 400: only the code tells an empty account from too many requests.
    Sign(Failure.REFUSED_FUNDS, says=r"insufficient_quota|billing_hard_limit_reached|billing_not_active"),
    Sign(Failure.REFUSED_INPUT, 400, r"invalid_image_url|while downloading|failed to download", "BSE2009"),
    Sign(Failure.REFUSED_INPUT, 400, r"invalid_image_file|invalid image file", "BSE2005"),
    Sign(Failure.REFUSED_INPUT, 404),
    # A gateway gave up waiting: the pictures may have been made.
    Sign(Failure.OUTCOME_UNKNOWN, 504),
    Sign(Failure.OUTCOME_UNKNOWN, 524),
)

_TOKEN_PRICE = re.compile(r"([0-9]+(?:\.[0-9]+)?) USD/M (text|image) (in|out)")


class OpenAI(Provider):
    """The Images API.

    Options: `organization`, `project`: whom calls are billed to, where the key belongs to several.
    """

    name = "openai"
    traits = Traits("synchronous")
    default_base = "https://api.openai.com/v1"

    def build_submit(self, job: Job) -> Request:
        """`POST /images/generations`, or with input images `POST /images/edits`; OpenAI fetches those itself."""
        asked = native(job)
        params, path = asked.params, "generations"
        if params.get("output_format") == "png":
            params.pop(
                "output_compression", None
            )  # there is none without loss, and asking for it is an error
        if "images" in params:
            path, params["images"] = "edits", [{"image_url": url} for url in params["images"]]
        if "mask" in params:
            params["mask"] = {"image_url": params["mask"]}
        return json_request(
            "POST", f"{self.base}/images/{path}", self._headers(), {"model": asked.model, **params}
        )

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 holds all pictures."""
        if answer.status >= 300:
            return refused(answer, _REFUSALS, _said(answer))
        body = document(answer)
        data = body.get("data")
        if not isinstance(data, list):
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without pictures")
        return Finished(
            list(_outputs(data))[:_OUTPUTS_MAX],
            cost_micro=_cost_micro(job, body.get("usage")),
            upstream_id=answer.headers.get("x-request-id"),
        )

    def build_check(self) -> Request | None:
        """`GET /models`."""
        return Request("GET", f"{self.base}/models", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Any list of models will do."""
        return Check(answer.status == 200, "the key is good" if answer.status == 200 else told(answer))

    def _headers(self) -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.settings.api_key}"}
        for option in ("organization", "project"):
            if option in self.settings.options:
                headers[f"openai-{option}"] = self.settings.options[option]
        return headers


def _said(answer: Answer) -> str:
    error = document(answer).get("error")
    return " ".join(text(at(error, key)) for key in ("code", "type", "message"))


def _outputs(data: list[Any]) -> Iterator[Output]:
    """GPT Image answers in base64; servers that speak the same dialect may name an address."""
    for item in data:
        if encoded := text(at(item, "b64_json")):
            yield Output(url=f"data:;base64,{encoded}")
        elif url := text(at(item, "url")):
            yield Output(url=url)


def _cost_micro(job: Job, usage: Any) -> int | None:
    """What the tokens cost by the prices in the catalog's `usd_formula`; None where a count or a price is missing.

    Dollars per million tokens are micro-dollars per token.
    """
    formula = text(job.offer.raw.get("usd_formula"))
    prices = {(kind, way): float(price) for price, kind, way in _TOKEN_PRICE.findall(formula)}
    drawn = at(usage, "output_tokens_details", "image_tokens")
    counts = {
        ("text", "in"): number(at(usage, "input_tokens_details", "text_tokens")),
        ("image", "in"): number(at(usage, "input_tokens_details", "image_tokens")),
        ("text", "out"): number(at(usage, "output_tokens_details", "text_tokens")) or 0.0,
        ("image", "out"): number(at(usage, "output_tokens") if drawn is None else drawn),
    }
    cost = 0.0
    for kind, count in counts.items():
        if count is None or (count and kind not in prices):
            return None
        cost += count * prices.get(kind, 0.0)
    return round(cost)
