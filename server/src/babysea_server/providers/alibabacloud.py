"""Alibaba Cloud Model Studio (DashScope): tasks that are created and polled, and pictures answered at once.

A submit whose answer was lost cannot be reconciled. Tasks are listed by time and model only, with neither what was
asked nor an id of ours, so that a listed task may be anybody's; and what is answered at once is listed nowhere.
Callbacks belong to the account, not to a task, and hold no outputs.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from babysea_server.catalog.pricing import operator_cost
from babysea_server.catalog.types import Traits
from babysea_server.errors import PARAMETER_OUT_OF_RANGE
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
from babysea_server.settings import ProviderSettings, SettingsError

_FIRST_POLL_S = {"image": 2.0, "video": 10.0}
_OUTPUTS_MAX = 32
_MESSAGE_MAX = 500

#: By region, the host that all workspaces share; None where each has only its own.
_SHARED_HOSTS = {
    "ap-southeast-1": "dashscope-intl.aliyuncs.com",
    "us-east-1": "dashscope-us.aliyuncs.com",
    "cn-beijing": "dashscope.aliyuncs.com",
    "ap-northeast-1": None,
    "cn-hongkong": None,
    "eu-central-1": None,
}
_WORKSPACE = re.compile(r"[A-Za-z0-9_-]{1,63}")

#: What is answered at once; every other endpoint makes tasks, and only when it is told to.
_AT_ONCE = "/multimodal-generation/"

# Targets of the catalog that have their place in a list.
_PROMPT = "input.messages[].content[].text"
_PICTURES = "input.messages[].content[].image"
_MEDIA = "input.media."
_VOICES = "input.media.reference_voice"

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")

#: By code, which is the same under any status: errors come with HTTP 200, too, and at the end of tasks.
_ENDS = (
    Sign(Failure.REFUSED_FUNDS, says=r"^Arrearage|FreeTierOnly"),
    Sign(Failure.REFUSED_POLICY, says=r"^data_?inspection_?failed|^IPInfringementSuspect"),
    Sign(Failure.REFUSED_INPUT, says=r"^InvalidURL|^InvalidParameter\.DataInspection", code="BSE2009"),
    Sign(Failure.REFUSED_BUSY, says=r"^Throttling|^insufficient_quota", code="BSE4003"),
    Sign(Failure.REFUSED_BUSY, says=r"^ServiceUnavailable"),
    Sign(Failure.REFUSED_AUTH, says=r"^InvalidApiKey|^(Model\.)?AccessDenied"),
    Sign(Failure.REFUSED_INPUT, says=r"^Invalid(Parameter|File|Image)|^BadRequest|^(Model)?NotFound"),
)
_REFUSALS = (
    *_ENDS,
    Sign(Failure.REFUSED_INPUT, 404),
    # A picture that is answered at once may have been made, and a task created.
    Sign(Failure.OUTCOME_UNKNOWN, 408),
    Sign(Failure.OUTCOME_UNKNOWN, 504),
)
#: What an answer about a task can say of the task itself, and not of the question.
_ABOUT_THE_TASK = (Failure.REFUSED_POLICY, Failure.REFUSED_INPUT)


class AlibabaCloud(Provider):
    """The DashScope API.

    Options: `region`: where the key is from, by default `ap-southeast-1`, for keys and models are of one region;
    `workspace`: the id of the workspace that is called, needed where a region has no host for all.
    """

    name = "alibabacloud"
    traits = Traits("polling", "queue_cancel_api")
    default_base = "https://dashscope-intl.aliyuncs.com/api/v1"
    output_life_s = 86_400.0

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        if not settings.base_url:
            self.base = f"https://{_host(settings.options)}/api/v1"

    def inline(self, job: Job) -> bool:
        """Whether the model's endpoint is one that answers at once."""
        return _AT_ONCE in (job.offer.route or "")

    def build_submit(self, job: Job) -> Request:
        """`POST /services/aigc/...`, for a task with `X-DashScope-Async`."""
        headers = self._headers()
        if not self.inline(job):
            headers["x-dashscope-async"] = "enable"
        path = (job.offer.route or "").split()[1]
        return json_request("POST", f"{self.base}{path}", headers, _body(job))

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 is a task, or the pictures, or an error."""
        body = document(answer)
        output = body.get("output")
        if answer.status < 300:
            if task_id := text(at(output, "task_id")):
                return Accepted(task_id, poll_after_s=_FIRST_POLL_S[job.model.media])
            if isinstance(at(output, "choices"), list):
                return _finished(job, body, text(body.get("request_id")) or None)
            if not text(body.get("code")):
                # It was accepted under an id that we do not know, or made and lost: as good as a lost answer.
                return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without a task or an output")
        return _refused(answer, body)

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /tasks/{id}`."""
        return Request("GET", self._task(ticket), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The task. A lost one, or one of another region, is `UNKNOWN`; one that succeeded may be incomplete."""
        if answer.status == 404:
            return Refused(Failure.FAILED, "Model Studio does not know the task")
        body = document(answer)
        output = body.get("output")
        match at(output, "task_status") if answer.status == 200 else None:
            case "SUCCEEDED":
                return _finished(job, body)
            case "FAILED":
                return failed(_said(output), _ENDS)
            case "CANCELED":
                return Refused(Failure.FAILED, "the task was canceled at Model Studio")
            case "UNKNOWN":
                return Refused(Failure.FAILED, "Model Studio does not know the task")
            case None if answer.status in (200, 400) and text(body.get("code")):
                refusal = _refused(answer, body)
                return refusal if refusal.failure in _ABOUT_THE_TASK else Running()
            case _:
                return Running()

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`POST /tasks/{id}/cancel`, for a task that has not begun. Its 200 does not say that the task stopped."""
        return Request("POST", f"{self._task(ticket)}/cancel", self._headers())

    def build_check(self) -> Request | None:
        """`GET /tasks/`: the newest task."""
        return Request("GET", f"{self.base}/tasks/?page_no=1&page_size=1", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """200, unless it holds an error."""
        body = document(answer)
        if answer.status == 200 and body and not body.get("code"):
            return Check(True, "connected")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.settings.api_key}"}
        if workspace := self.settings.options.get("workspace"):
            headers["x-dashscope-workspace"] = workspace
        return headers

    def _task(self, ticket: Accepted) -> str:
        return f"{self.base}/tasks/{quote(ticket.upstream_id, safe='')}"


def _host(options: Mapping[str, str]) -> str:
    region, workspace = options.get("region", "ap-southeast-1"), options.get("workspace", "")
    if region not in _SHARED_HOSTS:
        raise SettingsError(f"providers.alibabacloud: region is one of {', '.join(sorted(_SHARED_HOSTS))}")
    shared = _SHARED_HOSTS[region]
    if shared is None and not _WORKSPACE.fullmatch(workspace):
        raise SettingsError(f"providers.alibabacloud: region {region} needs the id of a workspace")
    return shared or f"{workspace}.{region}.maas.aliyuncs.com"


def _body(job: Job) -> dict[str, Any]:
    """The request: the model, its `input` and its `parameters`."""
    asked = native(job)
    params = asked.params
    if _PROMPT in params:
        pictures = params.pop(_PICTURES, [])
        content = [*({"image": url} for url in pictures), {"text": params.pop(_PROMPT)}]
        params["input.messages"] = [{"role": "user", "content": content}]
        _complete(params, len(pictures))
    if media := _media(params):
        params["input.media"] = media
    if "parameters.resolution" in params:
        params["parameters.resolution"] = params["parameters.resolution"].upper()
    return {"model": asked.model, **nested(params)}


def _complete(params: dict[str, Any], pictures: int) -> None:
    """What pictures of a conversation need beside their names: other places, other shapes."""
    if "parameters.enable_interleave" in params and (params["parameters.enable_interleave"] or not pictures):
        # From words alone it draws only so, and then takes the number as a limit.
        params |= {"parameters.enable_interleave": True, "parameters.max_images": params["parameters.n"]}
        params["parameters.n"] = 1
    if "parameters.bbox_list" in params:
        params["parameters.bbox_list"] = _boxes(params["parameters.bbox_list"], pictures)
    if "parameters.color_palette" in params:
        params["parameters.color_palette"] = _palette(params["parameters.color_palette"])


def _media(params: dict[str, Any]) -> list[dict[str, str]]:
    """The files of a video, each with its part in it; a voice belongs to the reference at its own place."""
    voices: list[str] = params.pop(_VOICES, [])
    media: list[dict[str, str]] = []
    for target in [target for target in params if target.startswith(_MEDIA)]:
        urls = params.pop(target)
        kind = target.removeprefix(_MEDIA)
        media += [{"type": kind, "url": url} for url in (urls if isinstance(urls, list) else [urls])]
    if len(voices) > len(media):
        raise _out_of_range("there are more voices than references they could belong to")
    for item, voice in zip(media, voices, strict=False):
        item["reference_voice"] = voice
    return media


def _boxes(regions: Sequence[str], pictures: int) -> list[list[list[int]]]:
    """Boxes in pixels, for each picture its own: `x1,y1,x2,y2`, any number of them in the text at its place."""
    if len(regions) > pictures:
        raise _out_of_range("there are more regions than pictures they could belong to")
    boxes: list[list[list[int]]] = [[] for _ in range(pictures)]
    for index, region in enumerate(regions):
        corners = [round(float(found)) for found in _NUMBER.findall(region)]
        if len(corners) % 4:
            raise _out_of_range("a region is written x1,y1,x2,y2, in pixels of its picture")
        boxes[index] = [corners[start : start + 4] for start in range(0, len(corners), 4)]
    return boxes


def _palette(colors: Mapping[str, Any]) -> list[dict[str, str]]:
    """Colours with their shares, which must make a hundred per cent to the second decimal."""
    weights = {color: number(weight) or 0.0 for color, weight in colors.items()}
    total = sum(weights.values())
    if total <= 0 or any(not _COLOR.fullmatch(color) or weights[color] <= 0 for color in weights):
        raise _out_of_range("a palette gives colours such as #C2D1E6 and a weight above 0 for each")
    shares = {color: int(weight / total * 10_000) for color, weight in weights.items()}
    shares[next(iter(shares))] += 10_000 - sum(shares.values())
    return [{"hex": color, "ratio": f"{share / 100:.2f}%"} for color, share in shares.items()]


def _out_of_range(message: str) -> InputRefusedError:
    return InputRefusedError(PARAMETER_OUT_OF_RANGE.code, message)


def _refused(answer: Answer, body: Mapping[str, Any]) -> Refused:
    said = _said(body)
    refusal = refused(answer, _REFUSALS, said)
    if not said:
        return refusal
    return msgspec.structs.replace(refusal, message=f"HTTP {answer.status}: {said}"[:_MESSAGE_MAX])


def _said(error: Any) -> str:
    """Code and words of an error, of a task's end, or of one output."""
    code, message = text(at(error, "code")), " ".join(text(at(error, "message")).split())
    return f"{code}: {message}" if code and message else code or message


def _finished(job: Job, body: Mapping[str, Any], upstream_id: str | None = None) -> Finished | Refused:
    output = body.get("output")
    outputs = [Output(url=url) for url in _files(output)][:_OUTPUTS_MAX]
    results = at(output, "results")
    if not outputs and isinstance(results, list):
        # Each of the batch failed for itself, and the task is said to have succeeded.
        reasons = [said for result in results if (said := _said(result))]
        if reasons:
            return failed(reasons[0], _ENDS)
    return Finished(outputs, _cost_micro(job, body.get("usage")), _seconds(output), upstream_id)


def _files(output: Any) -> Iterator[str]:
    """Every address in an output: of a clip, of a batch's pictures, or of those in a conversation."""
    results = at(output, "results")
    found = [at(output, "video_url"), at(results, "video_url")]
    found += [at(result, "url") for result in (results if isinstance(results, list) else ())]
    choices = at(output, "choices")
    for choice in choices if isinstance(choices, list) else ():
        content = at(choice, "message", "content")
        found += [at(part, "image") for part in (content if isinstance(content, list) else ())]
    yield from (url for url in map(text, found) if url.startswith(("https://", "http://")))


def _cost_micro(job: Job, usage: Any) -> int | None:
    """What is billed, told in pictures or seconds, by the catalog's price; None where either is not known."""
    if job.model.media == "video":
        seconds = number(at(usage, "duration"))
        if seconds is None or not 0 < seconds <= 3600:
            return None
        return operator_cost(job.model, job.provider_id, job.inputs, seconds=seconds)
    count = number(at(usage, "image_count")) or number(at(usage, "output_image_count"))
    if count is None or not 0 < count <= _OUTPUTS_MAX:
        return None
    return operator_cost(job.model, job.provider_id, {**job.inputs, "generation_output_number": int(count)})


def _seconds(output: Any) -> float | None:
    """How long a task was worked on; its times have no zone, and all the same one."""
    try:
        began, ended = (datetime.fromisoformat(at(output, name)) for name in ("scheduled_time", "end_time"))
        seconds = (ended - began).total_seconds()
    except (TypeError, ValueError):
        return None
    return seconds if seconds >= 0 else None
