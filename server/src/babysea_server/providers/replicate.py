"""Replicate: predictions that are created, polled or called back, and canceled.

A prediction can be found again after a lost answer: Replicate lists predictions by time with their inputs, and
where the customer chose no seed, ours is like no other's.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from babysea_server.catalog.types import Traits
from babysea_server.errors import (
    FILE_DOWNLOAD_ERROR,
    FILE_LOAD_ERROR,
    PARAMETER_OUT_OF_RANGE,
    UNSUPPORTED_FILE_FORMAT,
)
from babysea_server.kit.clock import rfc3339
from babysea_server.providers.answers import (
    Sign,
    at,
    document,
    failed,
    json_request,
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
    NotFound,
    Output,
    Provider,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.providers.mapping import Native, native
from babysea_server.providers.signatures import standard_webhook_key, verifies_standard_webhook
from babysea_server.providers.sizes import pixels

_FIRST_POLL_S = {"image": 0.5, "video": 3.0}
_AREA = 1024 * 1024
#: The longest side that every model takes that wants its size in pixels.
_SIDE_MAX = 1280
#: How far around an attempt's opening its prediction is looked for: a page lists a hundred, so no farther than needed.
_BEFORE, _AFTER = timedelta(seconds=10), timedelta(minutes=2)
_OUTPUTS_MAX = 32
_OPENAI = "openai/"

_REFUSALS = (
    # First of all, because such a text names parameters, `moderation` among them.
    Sign(
        Failure.REFUSED_INPUT,
        422,
        r"must be (one of the following|(less|greater) than)",
        code=PARAMETER_OUT_OF_RANGE.code,
    ),
    Sign(Failure.REFUSED_INPUT, 422, r"input validation failed"),
    # A spending limit is answered under either status, and under load sometimes as throttling.
    Sign(Failure.REFUSED_FUNDS, says=r"insufficient credit|spend limit"),
    Sign(Failure.REFUSED_POLICY, 422, r"nsfw|sensitive|flagged|moderated|content polic"),
    Sign(Failure.REFUSED_INPUT, 404),
    # A gateway gave up waiting: the prediction may exist.
    Sign(Failure.OUTCOME_UNKNOWN, 504),
    Sign(Failure.OUTCOME_UNKNOWN, 524),
)
_ENDS = (
    Sign(
        Failure.REFUSED_INPUT,
        says=r"(failed|unable|could not|couldn't)( to)? (download|fetch)",
        code=FILE_DOWNLOAD_ERROR.code,
    ),
    Sign(
        Failure.REFUSED_INPUT,
        says=r"cannot identify image|unsupported (image|video|audio|file)",
        code=UNSUPPORTED_FILE_FORMAT.code,
    ),
    Sign(
        Failure.REFUSED_INPUT,
        says=r"(failed|unable) to (load|open|read|decode) (the )?(input|image|video|audio|file)",
        code=FILE_LOAD_ERROR.code,
    ),
    Sign(Failure.REFUSED_INPUT, says=r"^input validation error|\(E006\)"),
    Sign(
        Failure.REFUSED_POLICY,
        says=r"nsfw|flagged|(?<!-)\bsensitive\b|\bmoderat(ion|ed)\b|\bsafety\b|content polic|\(E005\)",
    ),
    # Partners' models and the start of a machine: nothing was made, and nothing is billed.
    Sign(
        Failure.REFUSED_BUSY,
        says=r"high demand|temporarily unavailable|rate limit|too many requests|\((E003|E004|E6716)\)",
    ),
)
_RESETS = re.compile(r"resets in ~?(\d{1,5}) ?s")


class Replicate(Provider):
    """The predictions API.

    Options: `openai_api_key`: your own key at OpenAI, sent to OpenAI's models here, of which `gpt-image-1` asks for it.
    """

    name = "replicate"
    traits = Traits("webhook_with_polling", "prediction_cancel_api", "hmac_sha256")
    default_base = "https://api.replicate.com/v1"
    hosts = ("replicate.com",)
    output_life_s = 3600.0

    def build_submit(self, job: Job) -> Request:
        """`POST /models/{owner}/{name}/predictions`, or `POST /predictions` for a model of one version."""
        asked = self._inputs(job)
        body: dict[str, Any] = {"input": asked.params}
        if job.callback_url is not None:
            body |= {"webhook": job.callback_url, "webhook_events_filter": ["completed"]}
        path = f"/models/{asked.model}/predictions"
        if ":" in asked.model or "/" not in asked.model:
            path, body = "/predictions", {"version": asked.model, **body}
        headers = self._headers()
        if job.timeout_s is not None:
            headers["cancel-after"] = f"{max(5, round(job.timeout_s))}s"
        return json_request("POST", f"{self.base}{path}", headers, body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """201 or 202 is a prediction, which may have ended by now."""
        if answer.status >= 300:
            return _refused(answer)
        body = document(answer)
        upstream_id = text(body.get("id"))
        if not upstream_id:
            # It was accepted under an id that we do not know: as good as a lost answer.
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id")
        end = _end(body)
        if end is None and answer.headers.get("preference-applied", "").startswith("wait"):
            # Whoever asked to wait is answered as soon as all files exist, inline and before they are stored.
            end = _finished(body) if _outputs(body) else None
        if isinstance(end, Finished):
            return msgspec.structs.replace(end, upstream_id=upstream_id)
        return end or Accepted(upstream_id, poll_after_s=_FIRST_POLL_S[job.model.media])

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /predictions/{id}`."""
        return Request("GET", self._prediction(ticket), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The prediction; 404 is a lost one."""
        if answer.status == 404:
            return Refused(Failure.FAILED, "Replicate does not know the prediction any more")
        if answer.status != 200:
            return Running()
        return _end(document(answer)) or Running()

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`POST /predictions/{id}/cancel`."""
        return Request("POST", f"{self._prediction(ticket)}/cancel", self._headers())

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """A finished prediction is answered as it is, so only the status tells."""
        return answer.status < 300 and document(answer).get("status") in ("canceled", "aborted")

    def build_reconcile(self, job: Job) -> Request | None:
        """`GET /predictions` of the minutes around the submit, where our seed marks the prediction."""
        if job.opened_at is None or not _is_marked(job):
            return None
        window = {
            "created_after": rfc3339(job.opened_at - _BEFORE),
            "created_before": rfc3339(job.opened_at + _AFTER),
        }
        return Request("GET", f"{self.base}/predictions?{urlencode(window)}", self._headers())

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        """Found by our seed, if by nothing else of the same kind.

        That it is not listed proves nothing: it may be listed a moment later.
        """
        found = _matching(job, document(answer).get("results")) if _is_marked(job) else ()
        return Accepted(found[0], poll_after_s=0.0) if len(found) == 1 else Unclear()

    def build_keys(self) -> Request | None:
        """`GET /webhooks/default/secret`, unless the secret is a setting."""
        if self.settings.webhook_secret:
            return None
        return Request("GET", f"{self.base}/webhooks/default/secret", self._headers())

    def read_keys(self, answer: Answer) -> tuple[bytes, ...]:
        """One secret for the whole account."""
        secret = text(document(answer).get("key"))
        return (standard_webhook_key(secret),) if answer.status == 200 and secret else ()

    def verify_callback(self, callback: Callback, keys: Sequence[bytes]) -> bool:
        """Standard Webhooks."""
        secret = self.settings.webhook_secret
        return verifies_standard_webhook(callback, (standard_webhook_key(secret),) if secret else keys)

    def build_check(self) -> Request | None:
        """`GET /account`."""
        return Request("GET", f"{self.base}/account", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Names the account."""
        account = document(answer)
        if answer.status == 200 and account:
            return Check(True, f"account {text(account.get('username')) or 'without a name'}")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}"}

    def _prediction(self, ticket: Accepted) -> str:
        return f"{self.base}/predictions/{quote(ticket.upstream_id, safe='')}"

    def _inputs(self, job: Job) -> Native:
        """The model's own inputs: what the data cannot say, and our seed where the customer chose none."""
        asked = native(job)
        params = asked.params
        if "width,height" in params:
            ratio = params.pop("width,height")
            params["width"], params["height"] = pixels(ratio, area=_AREA, high=_SIDE_MAX)
        if params.get("max_images", 1) > 1:
            params["sequential_image_generation"] = "auto"  # else it makes one, whatever the most is
        if _is_marked(job):
            params[job.offer.params["generation_seed"]] = job.own_seed
        if asked.model.startswith(_OPENAI) and (key := self.settings.options.get("openai_api_key")):
            params["openai_api_key"] = key
        return asked


def _is_marked(job: Job) -> bool:
    """Whether our own seed marks the prediction: the model takes one, and the customer left it to chance."""
    chosen = job.inputs.get("generation_seed")
    return "generation_seed" in job.offer.params and (chosen is None or chosen < 0)


def _matching(job: Job, predictions: Any) -> list[str]:
    """The ids of those listed predictions that carry our seed, and nothing that contradicts it."""
    params = job.offer.params
    asked = native(job)
    prompt = params.get("generation_prompt", "")
    found = dict.fromkeys(
        text(at(prediction, "id"))
        for prediction in (predictions if isinstance(predictions, list) else [])
        if at(prediction, "input", params["generation_seed"]) == job.own_seed
        and at(prediction, "input", prompt) == asked.params.get(prompt)
        and text(at(prediction, "model")) in ("", asked.model.partition(":")[0])
    )
    return [upstream_id for upstream_id in found if upstream_id]


def _refused(answer: Answer) -> Refused:
    body = document(answer)
    refusal = refused(answer, _REFUSALS, f"{text(body.get('title'))}: {words(body)}")
    if refusal.failure is Failure.REFUSED_BUSY and refusal.retry_after_s is None:
        wait = _RESETS.search(refusal.message)
        return msgspec.structs.replace(refusal, retry_after_s=float(wait[1])) if wait else refusal
    return refusal


def _end(prediction: Mapping[str, Any]) -> Finished | Refused | None:
    """How a prediction ended; None while it has not."""
    match prediction.get("status"):
        case "succeeded":
            return _finished(prediction)
        case "failed":
            return failed(words(prediction.get("error")), _ENDS)
        case "aborted":
            return Refused(Failure.TIMED_OUT, "Replicate did not start the prediction before its deadline")
        case "canceled" if _overdue(prediction):
            return Refused(Failure.TIMED_OUT, "Replicate stopped the prediction at its deadline")
        case "canceled":
            return Refused(Failure.FAILED, "the prediction was canceled at Replicate")
    return None


def _finished(prediction: Mapping[str, Any]) -> Finished:
    return Finished(
        _outputs(prediction), predict_seconds=number(at(prediction.get("metrics"), "predict_time"))
    )


def _overdue(prediction: Mapping[str, Any]) -> bool:
    """Whether a prediction ended at the deadline that we gave it, and not because somebody stopped it."""
    deadline, completed = (text(prediction.get(name)) for name in ("deadline", "completed_at"))
    try:
        return datetime.fromisoformat(completed) >= datetime.fromisoformat(deadline)
    except (ValueError, TypeError):
        return False


def _outputs(prediction: Mapping[str, Any]) -> list[Output]:
    return [Output(url=url) for url in islice(_files(prediction.get("output")), _OUTPUTS_MAX)]


def _files(output: Any, depth: int = 0) -> Iterator[str]:
    """Every address in an output: models answer with one, with a list, or with an object."""
    if isinstance(output, str):
        if output.startswith(("https://", "http://", "data:")):
            yield output
    elif depth < 4:
        for item in (
            output.values() if isinstance(output, dict) else output if isinstance(output, list) else ()
        ):
            yield from _files(item, depth + 1)
