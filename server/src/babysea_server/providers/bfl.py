"""Black Forest Labs: tasks that are created, then asked for at the address that came with them.

A task is known in one region only, so the address is kept and never built anew; only a task that calls back has
none, and those are begun at a regional host alone. Nothing lists tasks and no reference of ours is taken, so a
lost answer cannot be reconciled. A task cannot be stopped.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from babysea_server.catalog.types import Traits
from babysea_server.errors import FILE_DOWNLOAD_ERROR, FILE_LOAD_ERROR, PARAMETER_OUT_OF_RANGE
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
    words,
)
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Callback,
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
from babysea_server.providers.inputs import InputRule
from babysea_server.providers.mapping import native
from babysea_server.providers.sizes import pixels

_GLOBAL_HOST = "api.bfl.ai"
_FIRST_POLL_S = 0.5
_DOLLARS_PER_CREDIT = 0.01
_AREA = 1024 * 1024
#: Parameters that take pictures in base64 only; all others take addresses.
_AS_BYTES = ("image_prompt", "image", "mask")
_PICTURE = InputRule(
    kinds=frozenset({"image"}),
    max_bytes=20 * 1024 * 1024,
    content_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
    max_pixels=20_000_000,
)
#: Answers to a poll that speak of the task; a failed task may come under an error's status.
_TELLING = frozenset({200, 400, 404, 422})

_FILES = (
    Sign(Failure.REFUSED_INPUT, says=r"(download|fetch).{0,40}(image|url)", code=FILE_DOWNLOAD_ERROR.code),
    Sign(
        Failure.REFUSED_INPUT,
        says=r"corrupt|(invalid|cannot identify|decod).{0,20}(image|base64)",
        code=FILE_LOAD_ERROR.code,
    ),
)
_REFUSALS = (
    # Also said to accounts with credit, while earlier tasks are being settled.
    Sign(Failure.REFUSED_BUSY, 402, says=r"settl|in progress|pending|concurren|too many|again later"),
    Sign(Failure.REFUSED_INPUT, 404),
    Sign(
        Failure.REFUSED_INPUT, 422, says=r"(less|greater) than|multiple of", code=PARAMETER_OUT_OF_RANGE.code
    ),
    Sign(Failure.OUTCOME_UNKNOWN, 504),
    *_FILES,
)
_ENDS = (Sign(Failure.REFUSED_POLICY, says=r"moderat|safety filter|nsfw"), *_FILES)


class Bfl(Provider):
    """The tasks API. `options` has none of its own.

    With a regional `base_url`, e.g. `https://api.eu.bfl.ai/v1`, tasks call back. `webhook_secret` is any text: it
    is sent along, and a callback that is signed with another is not believed.
    """

    name = "bfl"
    traits = Traits("webhook_with_polling")
    default_base = f"https://{_GLOBAL_HOST}/v1"
    hosts = ("bfl.ai",)
    output_life_s = 600.0

    def calls_back(self, job: Job) -> bool:
        """Not from the global host: the answer to such a submit names no address to ask at."""
        return urlsplit(self.base).hostname != _GLOBAL_HOST

    def input_files(self, job: Job) -> Mapping[str, InputRule]:
        """What goes into base64."""
        params = native(job).params
        return {params[name]: _PICTURE for name in _AS_BYTES if name in params}

    def build_submit(self, job: Job) -> Request:
        """`POST /{model}`."""
        asked = native(job)
        body = _body(asked.model, asked.params, job)
        if job.callback_url is not None:
            body["webhook_url"] = job.callback_url
            if self.settings.webhook_secret:
                body["webhook_secret"] = self.settings.webhook_secret
        return json_request("POST", f"{self.base}/{asked.model}", self._headers(), body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """The task's id, where to ask for it, and often what it costs."""
        if answer.status >= 300:
            return refused(answer, _REFUSALS)
        body = document(answer)
        upstream_id = text(body.get("id"))
        if not upstream_id:
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id")
        state = {"polling_url": text(body.get("polling_url")), "credits": number(body.get("cost"))}
        return Accepted(
            upstream_id,
            {key: value for key, value in state.items() if value not in ("", None)},
            _FIRST_POLL_S,
        )

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET` at the task's own address, or `/get_result?id=` where it was given none."""
        known = text(at(ticket.state, "polling_url"))
        return Request(
            "GET", known or f"{self.base}/get_result?id={quote(ticket.upstream_id, safe='')}", self._headers()
        )

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The task's status, whatever the HTTP status says; 404 is a lost task."""
        if answer.status not in _TELLING:
            return Running()
        body = document(answer)
        match body.get("status"):
            case "Ready":
                return _finished(body, ticket)
            case "Request Moderated":
                return Refused(Failure.REFUSED_POLICY, _why(body))
            case "Content Moderated":  # made, and then withheld: it is billed
                return Refused(Failure.REFUSED_POLICY, _why(body), cost_micro=_cost_micro(body, ticket))
            case "Error" | "Failed":
                return failed(words(body.get("details")) or words(body), _ENDS)
        if answer.status == 404 or body.get("status") == "Task not found":
            return Refused(Failure.FAILED, "BFL does not know the task any more")
        return Running()

    def verify_callback(self, callback: Callback, keys: Sequence[bytes]) -> bool:
        """A hint, unless it carries the signature of another secret: `sha256=` and the HMAC of the body."""
        secret, given = self.settings.webhook_secret, callback.headers.get("x-bfl-signature", "")
        if not secret or not given.startswith("sha256="):
            return True
        signature = hmac.new(secret.encode(), callback.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(f"sha256={signature}".encode(), given.encode("utf-8", "replace"))

    def build_check(self) -> Request | None:
        """`GET /credits`."""
        return Request("GET", f"{self.base}/credits", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Tells the balance."""
        if answer.status == 200:
            left = number(document(answer).get("credits"))
            return Check(True, "the key works" if left is None else f"{left:g} credits left")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        return {"x-key": str(self.settings.api_key)}


def _body(model: str, params: dict[str, Any], job: Job) -> dict[str, Any]:
    """The parameters with sizes in pixels, pictures in base64, and several pictures under a name each."""
    if "width,height" in params:
        ratio = params.pop("width,height")
        if model.startswith("flux-2-"):
            size = pixels(ratio, area=_AREA)
        else:
            size = pixels(ratio, area=_AREA, multiple=32, low=256, high=1440)
        params["width"], params["height"] = size
    for name in _AS_BYTES:
        if name in params:
            params[name] = base64.b64encode(job.files[params[name]].data).decode()
    pictures = params.get("input_image")
    if isinstance(pictures, list):
        del params["input_image"]
        for position, url in enumerate(pictures, 1):
            params["input_image" if position == 1 else f"input_image_{position}"] = url
    return params


def _finished(body: dict[str, Any], ticket: Accepted) -> Finished:
    sample = text(at(body, "result", "sample"))
    return Finished(
        [Output(url=sample)] if sample else [],
        cost_micro=_cost_micro(body, ticket),
        predict_seconds=_seconds(at(body, "result")),
    )


def _seconds(result: Any) -> float | None:
    duration = number(at(result, "duration"))
    if duration is not None:
        return duration
    begun, ended = number(at(result, "start_time")), number(at(result, "end_time"))
    return None if begun is None or ended is None else ended - begun


def _cost_micro(body: dict[str, Any], ticket: Accepted) -> int | None:
    """What the result tells, else what the submit told."""
    told_now = number(body.get("cost"))
    cost = told_now if told_now is not None else number(at(ticket.state, "credits"))
    return None if cost is None else micro_dollars(cost * _DOLLARS_PER_CREDIT)


def _why(body: dict[str, Any]) -> str:
    return ": ".join(filter(None, (text(body.get("status")), words(body.get("details")))))
