"""Stability AI's Stable Image: each call is a form and answers with one picture.

Only the endpoints that answer at once are used; there is nothing to poll, cancel or look for after a lost answer.
"""

from collections.abc import Mapping

from babysea_server.catalog.types import Traits
from babysea_server.providers.answers import Part, Sign, document, form_request, number, refused, text, told
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
from babysea_server.providers.inputs import InputRule
from babysea_server.providers.mapping import native

_SD3 = "/v2beta/stable-image/generate/sd3"
#: How far a picture may be changed where the customer does not say; Stability wants to be told.
_STRENGTH = 0.85
#: A whole request may have 10 MiB; the rest is for its texts.
_INPUT_RULE = InputRule(
    kinds=frozenset({"image"}),
    max_bytes=10 * 1024 * 1024 - 64 * 1024,
    content_types=frozenset({"image/png", "image/jpeg", "image/webp"}),
    min_width=64,
    min_height=64,
)

_REFUSALS = (
    Sign(Failure.REFUSED_POLICY, 403, r"content_moderation"),
    Sign(Failure.REFUSED_INPUT, 404),
    Sign(Failure.REFUSED_INPUT, 413, code="BSE2007"),
    # A gateway gave up waiting: the picture may have been made.
    Sign(Failure.OUTCOME_UNKNOWN, 504),
    Sign(Failure.OUTCOME_UNKNOWN, 524),
)


class Stability(Provider):
    """The v2beta API. `options` has none of its own."""

    name = "stability"
    traits = Traits("synchronous")
    default_base = "https://api.stability.ai"

    def input_files(self, job: Job) -> Mapping[str, InputRule]:
        """The picture travels in the form."""
        source = native(job).params.get("image")
        return {} if source is None else {source: _INPUT_RULE}

    def build_submit(self, job: Job) -> Request:
        """`POST` to the model's route, `/v2beta/stable-image/generate/sd3` where it has none."""
        asked = native(job)
        params, path = asked.params, job.offer.route or _SD3
        source = params.pop("image", None)
        if source is None:
            params.pop("strength", None)  # says how far the picture may be changed: there is none
        else:
            params.pop("aspect_ratio", None)  # the result has the picture's own
            params.setdefault("strength", _STRENGTH)
        if path == _SD3:
            params |= {"model": asked.model, "mode": "text-to-image" if source is None else "image-to-image"}
        parts = [Part(name, str(value)) for name, value in params.items()]
        if source is not None:
            file = job.files[source]
            parts.append(Part("image", file.data, f"image.{file.extension}", file.content_type))
        return form_request(f"{self.base}{path}", self._headers(), parts)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 is a picture, or a blurred one where its content was refused."""
        if answer.status >= 300:
            return refused(answer, _REFUSALS, text(document(answer).get("name")))
        request_id = answer.headers.get("x-request-id")
        if answer.headers.get("content-type", "").lower().startswith("image/"):
            reason, outputs = answer.headers.get("finish-reason", ""), [Output(data=answer.body)]
        else:
            body = document(answer)
            reason, image = text(body.get("finish_reason")), text(body.get("image"))
            if not reason and not image:
                return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without a picture")
            outputs = [Output(url=f"data:;base64,{image}")] if image else []
        if reason.upper() == "CONTENT_FILTERED":
            return Refused(Failure.REFUSED_POLICY, "the picture was withheld for its content")
        return Finished(outputs, upstream_id=request_id)

    def build_check(self) -> Request | None:
        """`GET /v1/user/balance`."""
        return Request("GET", f"{self.base}/v1/user/balance", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Tells the balance."""
        credits = number(document(answer).get("credits"))
        if answer.status == 200 and credits is not None:
            return Check(True, f"{credits:g} credits left")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}", "accept": "application/json"}
