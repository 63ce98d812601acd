"""BytePlus ModelArk: pictures come with the answer; videos are tasks that are polled or called back.

Callbacks are not signed, so a task is asked for after each. A video task can be found again after a lost answer:
tasks are listed with their seeds, and where the customer chose none, ours is like no other's. Pictures, and the
models that take no seed, cannot be reconciled.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from babysea_server.catalog.types import Price, Traits
from babysea_server.errors import (
    FILE_DOWNLOAD_ERROR,
    FILE_SIZE_EXCEEDED,
    PARAMETER_OUT_OF_RANGE,
    PROVIDER_RATE_LIMITED,
    UNSUPPORTED_FILE_FORMAT,
)
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
from babysea_server.providers.inputs import InputRefusedError
from babysea_server.providers.mapping import native, nested

_TASKS = "/contents/generations/tasks"
_FIRST_POLL_S = 5.0
_LISTED_MAX = 100
_OUTPUTS_MAX = 32
#: Sources and results of one request together.
_PICTURES_MAX = 15
#: Seconds after which a task that nobody began is given up there.
_EXPIRY_MIN_S, _EXPIRY_MAX_S = 3600, 259_200
_PART = re.compile(r"content\[(?P<type>\w+)(?:,(?P<role>\w+))?\]")

#: Searched in `<code> <message>`; codes are known by their beginnings.
_POLICY = Sign(Failure.REFUSED_POLICY, says=r"SensitiveContent|RiskDetection|sensitive information")
_REFUSALS = (
    _POLICY,
    Sign(Failure.REFUSED_FUNDS, says=r"AccountOverdue|ServiceOverdue"),
    Sign(Failure.REFUSED_BUSY, says=r"ServerOverloaded"),
    Sign(
        Failure.REFUSED_BUSY,
        says=r"^(\w*RateLimitExceeded|QuotaExceeded|SetLimitExceeded|InflightBatchsizeExceeded)",
        code=PROVIDER_RATE_LIMITED.code,
    ),
    Sign(Failure.REFUSED_INPUT, says=r"^InvalidParameter\.Oversized", code=FILE_SIZE_EXCEEDED.code),
    Sign(
        Failure.REFUSED_INPUT,
        says=r"^InvalidParameter\.Unsupported\w*Format",
        code=UNSUPPORTED_FILE_FORMAT.code,
    ),
    Sign(Failure.REFUSED_INPUT, says=r"^InvalidParameter.*(download|fetch)", code=FILE_DOWNLOAD_ERROR.code),
    Sign(
        Failure.REFUSED_INPUT,
        says=r"^InvalidParameter.*(out of range|must be (between|greater|less)|exceeds)",
        code=PARAMETER_OUT_OF_RANGE.code,
    ),
    Sign(Failure.REFUSED_INPUT, says=r"^(InvalidParameter|MissingParameter)"),
    # A model that the account has not opened is no fault of its credentials: its other models go on.
    Sign(Failure.REFUSED_INPUT, 404),
    Sign(Failure.OUTCOME_UNKNOWN, 504),
)


class BytePlus(Provider):
    """Pictures and video tasks of one region; another region is another `base_url`.

    Pictures are made in sets: how many is told as the most there may be, and once more in words behind the prompt,
    because without them the model decides.

    Options: `project`: the project that usage is booked on.
    """

    name = "byteplus"
    traits = Traits("webhook_with_polling", "queue_cancel_api")
    default_base = "https://ark.ap-southeast.bytepluses.com/api/v3"
    output_life_s = 86_400.0

    def inline(self, job: Job) -> bool:
        """Pictures are."""
        return job.model.media == "image"

    def calls_back(self, job: Job) -> bool:
        """Videos do."""
        return job.model.media == "video"

    def build_submit(self, job: Job) -> Request:
        """`POST /images/generations` or `POST /contents/generations/tasks`."""
        if job.model.media == "image":
            return json_request("POST", f"{self.base}/images/generations", self._headers(), _pictures(job))
        body = _task(job)
        if job.callback_url is not None:
            body["callback_url"] = job.callback_url
        return json_request("POST", f"{self.base}{_TASKS}", self._headers(), body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """The pictures, or the task's id."""
        body = document(answer)
        if answer.status >= 300:
            return refused(answer, _REFUSALS, _said(body.get("error")))
        if job.model.media == "image":
            return _read_pictures(job, answer)
        upstream_id = text(body.get("id"))
        if not upstream_id:
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id")
        return Accepted(upstream_id, poll_after_s=_FIRST_POLL_S)

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /contents/generations/tasks/{id}`."""
        return Request("GET", self._one(ticket), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The task; 404 is a lost one."""
        if answer.status == 404:
            return Refused(Failure.FAILED, "BytePlus does not know the task any more")
        if answer.status != 200:
            return Running()
        body = document(answer)
        match body.get("status"):
            case "succeeded":
                return Finished(_clip(job, body.get("content")))
            case "failed":
                return failed(_said(body.get("error")), _REFUSALS)
            case "cancelled":
                return Refused(Failure.FAILED, "the task was cancelled at BytePlus")
            case "expired":
                return Refused(Failure.TIMED_OUT, "the task expired at BytePlus")
            case _:
                return Running()

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`DELETE /contents/generations/tasks/{id}`: takes a task out of the queue."""
        return Request("DELETE", self._one(ticket), self._headers())

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """A task that runs is not stopped, and the request is refused."""
        return answer.status in (200, 204)

    def build_reconcile(self, job: Job) -> Request | None:
        """`GET /contents/generations/tasks`, where our seed marks the task."""
        if not _is_marked(job):
            return None
        page = {"page_num": 1, "page_size": _LISTED_MAX}
        return Request("GET", f"{self.base}{_TASKS}?{urlencode(page)}", self._headers())

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        """Found by our seed. That it is not on the page proves nothing."""
        items = document(answer).get("items")
        for task in items if isinstance(items, list) else []:
            if at(task, "seed") == job.own_seed and (id := text(at(task, "id"))):
                return Accepted(id, poll_after_s=0.0)
        return Unclear()

    def build_check(self) -> Request | None:
        """`GET /contents/generations/tasks` of one task."""
        return Request("GET", f"{self.base}{_TASKS}?page_num=1&page_size=1", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """A list of tasks needs the key."""
        return Check(True, "the key works") if answer.status == 200 else Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.settings.api_key}"}
        if project := self.settings.options.get("project"):
            headers["x-project-name"] = project
        return headers

    def _one(self, ticket: Accepted) -> str:
        return f"{self.base}{_TASKS}/{quote(ticket.upstream_id, safe='')}"


# ----------------------------------------------------------------------------------------- pictures


def _pictures(job: Job) -> dict[str, Any]:
    """The body for pictures: several are a set, which counts together with its sources.

    Raises:
        InputRefusedError: more sources and results than a set may have.
    """
    asked = native(job)
    params = asked.params
    count = job.inputs.get("generation_output_number", 1)
    sources = len(job.inputs.get("generation_input_file", ()))
    if count + sources > _PICTURES_MAX:
        message = f"{sources} input files and {count} results; at most {_PICTURES_MAX} in all are taken"
        raise InputRefusedError(PARAMETER_OUT_OF_RANGE.code, message)
    if count > 1:
        params["sequential_image_generation"] = "auto"
        params["prompt"] = f"{params['prompt']}\n\nMake {count} images."
    if params.get("sequential_image_generation") != "auto":
        params.pop("sequential_image_generation_options.max_images", None)
    return {"model": asked.model, **nested(params), "response_format": "url"}


def _read_pictures(job: Job, answer: Answer) -> Finished | Refused:
    """The pictures that were made. One that was not has an error in its place; it is not billed."""
    body = document(answer)
    items = body.get("data")
    if not isinstance(items, list):
        if body.get("error"):
            return refused(answer, _REFUSALS, _said(body["error"]))
        return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without data")
    outputs = [output for output in map(_picture, items) if output is not None]
    errors = [_said(item["error"]) for item in items if at(item, "error")]
    cost_micro = _cost_micro(job.offer.usd, number(at(body, "usage", "generated_images")))
    if errors and not outputs:
        worst = next((said for said in errors if _POLICY.fits(0, said)), errors[0])
        return failed(worst, _REFUSALS, cost_micro=cost_micro)
    return Finished(outputs[:_OUTPUTS_MAX], cost_micro, upstream_id=answer.headers.get("x-request-id"))


def _picture(item: Any) -> Output | None:
    if url := text(at(item, "url")):
        return Output(url=url)
    if data := text(at(item, "b64_json")):
        return Output(url=f"data:;base64,{data}")
    return None


def _cost_micro(usd: Price | None, count: float | None) -> int | None:
    """What so many pictures cost by the catalog's price of one."""
    if count is None or count < 0 or usd is None or isinstance(usd, Mapping):
        return None
    return round(usd * 1_000_000 * round(count))


# ----------------------------------------------------------------------------------------- videos


def _task(job: Job) -> dict[str, Any]:
    """The body of a task: texts, pictures, clips and sound stand in one list, each with its role."""
    asked = native(job)
    params = asked.params
    content = _content(params)
    if "frames" in params:
        params.pop("duration", None)
    if _is_marked(job):
        params[job.offer.params["generation_seed"]] = job.own_seed
    if job.timeout_s is not None:
        params["execution_expires_after"] = min(max(round(job.timeout_s), _EXPIRY_MIN_S), _EXPIRY_MAX_S)
    return {"model": asked.model, "content": content, **nested(params)}


def _content(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the parts out of the parameters: `content[type,role]` is where each belongs."""
    parts = []
    for match in list(filter(None, map(_PART.fullmatch, params))):
        value = params.pop(match[0])
        parts += [
            (match["type"], match["role"], item) for item in (value if isinstance(value, list) else [value])
        ]
    # Frames and references exclude each other, so a picture beside clips or sound is a reference, too.
    refers = any(role in ("reference_video", "reference_audio") for _, role, _ in parts)
    content: list[dict[str, Any]] = []
    for kind, role, item in parts:
        if kind == "text":
            content.append({"type": kind, "text": item})
        else:
            place = "reference_image" if refers and role == "first_frame" else role
            content.append({"type": kind, kind: {"url": item}, "role": place})
    return content


def _clip(job: Job, content: Any) -> list[Output]:
    """The clip, and its last frame where it was asked for."""
    video, frame = text(at(content, "video_url")), text(at(content, "last_frame_url"))
    if not video:
        return []
    wants_frame = job.inputs.get("generation_return_last_frame") is True
    return [Output(url=video), *([Output(url=frame, media="image")] if frame and wants_frame else [])]


def _is_marked(job: Job) -> bool:
    """Whether the task carries our seed: the customer chose none, or -1, which is the same."""
    return "generation_seed" in job.offer.params and job.inputs.get("generation_seed", -1) == -1


def _said(error: Any) -> str:
    """An error's code and words."""
    return " ".join(filter(None, (text(at(error, "code")), words(error))))
