"""Runway: tasks that are created and polled, and no callbacks.

A submit whose answer was lost cannot be reconciled: tasks are read one by one, by an id that only that answer holds.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from babysea_server.catalog.types import Traits
from babysea_server.errors import PARAMETER_OUT_OF_RANGE
from babysea_server.providers.answers import (
    Sign,
    at,
    document,
    failed,
    json_request,
    micro_dollars,
    number,
    refused,
    text,
    told,
)
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
    Running,
)
from babysea_server.providers.inputs import InputRefusedError
from babysea_server.providers.mapping import native, nested

_VERSION = "2024-11-06"
#: Asking about a task more often than every five seconds is not allowed.
_POLL_S = 6.0
_DOLLARS_PER_CREDIT = 0.01
_OUTPUTS_MAX = 32

_REFUSALS = (
    Sign(Failure.REFUSED_FUNDS, 400, r"not have enough credits"),
    Sign(Failure.REFUSED_AUTH, 400, r"X-Runway-(Version|On-Behalf-Of)"),
    Sign(Failure.REFUSED_INPUT, 400, r"failed to fetch asset|only https urls", "BSE2009"),
    Sign(Failure.REFUSED_INPUT, 404),
    Sign(Failure.REFUSED_INPUT, 405),
    # Its way of shedding load; behind a 504 the task may have been created all the same.
    Sign(Failure.REFUSED_BUSY, 502),
    Sign(Failure.OUTCOME_UNKNOWN, 504),
)
#: By the beginning of the failure code.
_ENDS = (
    Sign(Failure.REFUSED_POLICY, says=r"^(INPUT_PREPROCESSING\.)?SAFETY\b"),
    Sign(Failure.REFUSED_INPUT, says=r"^ASSET\.INVALID", code="BSE2005"),
)


class Runway(Provider):
    """The developer API.

    Options: `on_behalf_of`: whom tasks are created for, where the organisation must say so.
    """

    name = "runway"
    traits = Traits("polling", "prediction_cancel_api")
    default_base = "https://api.dev.runwayml.com/v1"
    output_life_s = 86_400.0

    def build_submit(self, job: Job) -> Request:
        """`POST /text_to_image`, `/text_to_video`, `/image_to_video`, `/video_to_video`, `/character_performance`."""
        body = _body(job)
        path = (job.offer.route or "").split()[1]
        if path == "/image_to_video" and "promptImage" not in body:
            path = "/text_to_video"
        headers = self._headers()
        if customer := self.settings.options.get("on_behalf_of"):
            headers["x-runway-on-behalf-of"] = customer
        return json_request("POST", f"{self.base}{path}", headers, body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 is a task."""
        body = document(answer)
        if answer.status >= 300:
            return refused(answer, _REFUSALS, _said(body))
        upstream_id = text(body.get("id"))
        if not upstream_id:
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id")
        return Accepted(upstream_id, poll_after_s=_POLL_S)

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /tasks/{id}`."""
        return Request("GET", self._task(ticket), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The task; 404 is one that was deleted. Asked again, a finished one has its addresses signed anew."""
        if answer.status == 404:
            return Refused(Failure.FAILED, "Runway does not know the task any more")
        if answer.status != 200:
            return Running(_POLL_S)
        body = document(answer)
        credits = number(at(body, "cost", "credits"))
        cost = None if credits is None else micro_dollars(credits * _DOLLARS_PER_CREDIT)
        match body.get("status"):
            case "SUCCEEDED":
                return Finished(list(_outputs(body.get("output")))[:_OUTPUTS_MAX], cost_micro=cost)
            case "FAILED":
                said = f"{text(body.get('failureCode'))} {text(body.get('failure'))}".strip()
                return failed(said, _ENDS, cost_micro=cost)
            case "CANCELLED":
                return Refused(Failure.FAILED, "the task was cancelled at Runway", cost_micro=cost)
            case _:
                return Running(_POLL_S)

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`DELETE /tasks/{id}`. Its 204 forgets the task, and says neither that it stopped nor what it cost."""
        return Request("DELETE", self._task(ticket), self._headers())

    def build_check(self) -> Request | None:
        """`GET /organization`."""
        return Request("GET", f"{self.base}/organization", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Tells the balance."""
        balance = number(document(answer).get("creditBalance"))
        if answer.status == 200:
            return Check(True, "connected" if balance is None else f"{balance:g} credits")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}", "x-runway-version": _VERSION}

    def _task(self, ticket: Accepted) -> str:
        return f"{self.base}/tasks/{quote(ticket.upstream_id, safe='')}"


def _body(job: Job) -> dict[str, Any]:
    """The task: files stand in objects, each model's in its own."""
    asked = native(job)
    params = asked.params
    for name, shape in (("referenceImages", {}), ("references", {"type": "image"})):
        if name in params:
            params[name] = [{**shape, "uri": url} for url in params[name]]
    if "keyframes" in params:
        # Nothing says where in the clip they belong: the first at its beginning, the others evenly after it.
        urls = params["keyframes"]
        params["keyframes"] = [{"uri": url, "at": at_index / len(urls)} for at_index, url in enumerate(urls)]
    if "reference" in params:
        params |= _performance(params.pop("character", None), params["reference"])
    return {"model": asked.model, **nested(params)}


def _performance(picture: str | None, clips: Sequence[str]) -> dict[str, Any]:
    """Who performs what: the first clip drives a picture, or else the second clip."""
    characters = [{"type": "image", "uri": picture}] if picture else []
    characters += [{"type": "video", "uri": clip} for clip in clips[1:]]
    if len(characters) != 1:
        raise InputRefusedError(
            PARAMETER_OUT_OF_RANGE.code,
            "one character is needed: a picture, or a second clip after the one that drives it",
        )
    return {"character": characters[0], "reference": {"type": "video", "uri": clips[0]}}


def _outputs(output: Any) -> Iterator[Output]:
    for url in output if isinstance(output, list) else ():
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            yield Output(url=url)


def _said(body: dict[str, Any]) -> str:
    """What an error says, and what it says of each field."""
    issues = body.get("issues")
    said = [text(at(issue, "message")) for issue in issues] if isinstance(issues, list) else []
    return "; ".join(filter(None, (text(body.get("error")), *said)))
