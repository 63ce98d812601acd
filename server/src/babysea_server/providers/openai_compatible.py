"""Servers of one's own that speak OpenAI's API: LocalAI, stable-diffusion.cpp, vLLM-Omni, SGLang and others.

One adapter with a dialect for each server. Pictures come with the answer, clips from jobs that are polled;
stable-diffusion.cpp has jobs for both. No server takes an id from its caller, and listed jobs do not tell whose
they are, so a submit whose answer was lost stays unknown. Nothing here is bought: every cost is 0.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urljoin

import msgspec

from babysea_server.catalog.types import Traits
from babysea_server.errors import FILE_LOAD_ERROR, PARAMETER_OUT_OF_RANGE
from babysea_server.providers.answers import (
    Part,
    Sign,
    at,
    document,
    failed,
    form_request,
    json_request,
    number,
    refused,
    same_host,
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
from babysea_server.providers.inputs import InputFile, InputRule
from babysea_server.providers.mapping import native, nested
from babysea_server.providers.sizes import pixels
from babysea_server.settings import ProviderSettings, SettingsError

_FIRST_POLL_S = {"image": 0.5, "video": 3.0}
_MEGAPIXEL = 1024 * 1024
_FRAMES_PER_SECOND = 16
_OUTPUTS_MAX = 32
_PICTURE = InputRule(
    frozenset({"image"}), 32 * 1024 * 1024, frozenset({"image/png", "image/jpeg", "image/webp"})
)
#: The pair's targets whose values are addresses of pictures.
_FILES = ("init_image", "ref_images")


class _Dialect(msgspec.Struct, frozen=True):
    """How a server differs. `image` and `video` are the fields it has, by the names that the catalog uses."""

    image: Mapping[str, str]
    video: Mapping[str, str]
    jobs: Literal["sora", "sdcpp"] | None = "sora"
    """The jobs it has; without any, clips come with the answer."""
    edits: bool = True
    """Pictures are sent as a form to `/v1/images/edits`, else in the request for new ones."""
    fixed: Mapping[str, str] = {}
    cancels: bool = False


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_BASE64 = {"response_format": "b64_json"}
_PIPELINE = _same("seed", "num_inference_steps", "guidance_scale", "true_cfg_scale", "negative_prompt")
_PIPELINE |= {"cfg_scale": "guidance_scale"}
_PICTURES = _same("prompt", "n", "size", "output_format", "output_compression") | _PIPELINE
_CLIPS = _same("prompt", "seconds", "size", "fps", "num_frames") | _PIPELINE
_SDCPP = _same("prompt", "negative_prompt", "width", "height", "seed", "strength", "init_image") | {
    "num_inference_steps": "sample_params.sample_steps",
    "guidance_scale": "sample_params.guidance.distilled_guidance",
    "cfg_scale": "sample_params.guidance.txt_cfg",
    "true_cfg_scale": "sample_params.guidance.txt_cfg",
}

_DIALECTS: Mapping[str, _Dialect] = {
    "openai": _Dialect(_same("prompt", "n", "size"), _same("prompt", "seconds", "size")),
    "localai": _Dialect(
        _same("prompt", "n", "size", "ref_images") | {"num_inference_steps": "step", "init_image": "file"},
        _same("prompt", "width", "height", "num_frames", "fps", "seconds", "seed")
        | {"num_inference_steps": "step", "cfg_scale": "cfg_scale", "init_image": "start_image"},
        jobs=None,
        edits=False,
        fixed=_BASE64,
    ),
    "stable-diffusion.cpp": _Dialect(
        _SDCPP | _same("output_format", "output_compression", "ref_images") | {"n": "batch_count"},
        _SDCPP | _same("fps") | {"num_frames": "video_frames"},
        jobs="sdcpp",
        edits=False,
        cancels=True,
    ),
    "vllm-omni": _Dialect(_PICTURES, _CLIPS | _same("generate_sound"), fixed=_BASE64, cancels=True),
    # Its DELETE forgets the job and lets it run, so there is no cancel.
    "sglang": _Dialect(_PICTURES, _CLIPS, fixed=_BASE64),
}

_SHORT_OF_MEMORY = Sign(Failure.REFUSED_BUSY, says=r"out ?of ?memory|failed to allocate")
_BAD_PICTURE = Sign(
    Failure.REFUSED_INPUT,
    says=r"cannot identify image|(invalid|decode|load) image",
    code=FILE_LOAD_ERROR.code,
)
_POLICY = Sign(Failure.REFUSED_POLICY, says=r"moderation_blocked|content_policy|content policy")
_RANGE = r"exceeds|(less|greater) than or equal|out of range"
_REFUSALS = (
    _POLICY,
    _SHORT_OF_MEMORY,
    Sign(Failure.REFUSED_BUSY, 429, says=r"queue"),
    Sign(Failure.REFUSED_BUSY, 500, says=r"not ready|still loading"),
    Sign(Failure.REFUSED_INPUT, 400, says=_BAD_PICTURE.says, code=FILE_LOAD_ERROR.code),
    Sign(Failure.REFUSED_INPUT, 400, says=_RANGE, code=PARAMETER_OUT_OF_RANGE.code),
    Sign(Failure.REFUSED_INPUT, 422, says=_RANGE, code=PARAMETER_OUT_OF_RANGE.code),
    Sign(Failure.REFUSED_INPUT, 404),
    Sign(Failure.OUTCOME_UNKNOWN, 504),
)
_ENDS = (_POLICY, _SHORT_OF_MEMORY, _BAD_PICTURE)


class OpenAICompatible(Provider):
    """A server that speaks OpenAI's image API; `base_url` with or without `/v1`, `api_key` where it wants one.

    Options: `server`: `localai`, `stable-diffusion.cpp`, `vllm-omni` or `sglang`; the default `openai` sends only
    what every server takes: prompt, number and size. `model.<identifier>`: what the server calls a model, e.g.
    `model.bfl/flux-schnell`; empty: no name is sent.
    """

    name = "openai_compatible"
    traits = Traits("polling", "queue_cancel_api")
    needs = ("base_url",)

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        self.base = self.base.removesuffix("/v1")
        server = settings.options.get("server", "openai")
        if server not in _DIALECTS:
            raise SettingsError(
                f"providers.openai_compatible.options.server is one of {', '.join(_DIALECTS)}; not {server!r}"
            )
        self._dialect = _DIALECTS[server]

    def inline(self, job: Job) -> bool:
        """All but jobs."""
        jobs = self._dialect.jobs
        return jobs is None if job.model.media == "video" else jobs != "sdcpp"

    def input_files(self, job: Job) -> Mapping[str, InputRule]:
        """Every picture: the servers fetch nothing that we could vouch for."""
        fields = [name for name, target in job.offer.params.items() if target.removesuffix("[]") in _FILES]
        return {url: _PICTURE for name in fields for url in _listed(job.inputs.get(name))}

    def build_submit(self, job: Job) -> Request:
        """`POST /v1/images/generations` or `edits`, `/v1/videos`, `/video`, or `/sdcpp/v1/{img,vid}_gen`."""
        dialect, media = self._dialect, job.model.media
        asked = native(job)
        params = _sized(job, asked.params)
        if dialect is _DIALECTS["localai"] and "negative_prompt" in params:
            params["prompt"] = f"{params.get('prompt', '')}|{params['negative_prompt']}"
        fields = dialect.video if media == "video" else dialect.image
        if media == "video" and "seconds" not in fields:
            params = _counted(params)
        body = {
            fields[name]: _written(job, value) if name in _FILES else value
            for name, value in params.items()
            if name in fields
        }
        model = self.settings.options.get(f"model.{job.model.identifier}", asked.model)
        if model and dialect.jobs != "sdcpp":
            body["model"] = model
        files = [job.files[url] for name in _FILES for url in _listed(params.get(name))]
        if dialect.jobs == "sora" and (files or media == "video"):
            return self._form(job, body, files)
        path = "/video" if media == "video" else "/v1/images/generations"
        if dialect.jobs == "sdcpp":
            path = "/sdcpp/v1/vid_gen" if media == "video" else "/sdcpp/v1/img_gen"
        return json_request("POST", f"{self.base}{path}", self._headers(), {**dialect.fixed, **nested(body)})

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 holds the outputs, or 200 to 202 a job."""
        if answer.status >= 300:
            found = refused(answer, _REFUSALS, _said(answer))
            return Refused(found.failure, found.message, found.code, found.retry_after_s, cost_micro=0)
        body = document(answer)
        data = body.get("data")
        if self.inline(job):
            if not isinstance(data, list):
                return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an output", cost_micro=0)
            outputs = list(self._outputs(data))[:_OUTPUTS_MAX]
            return Finished(outputs, cost_micro=0, predict_seconds=number(body.get("inference_time_s")))
        id = text(body.get("id"))
        if not id:
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id", cost_micro=0)
        return Accepted(id, poll_after_s=_FIRST_POLL_S[job.model.media])

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /v1/videos/{id}` or `/sdcpp/v1/jobs/{id}`."""
        return Request("GET", self._job(ticket), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The job; jobs are kept in memory, so 404 and 410 are those that a restart or their age took."""
        if answer.status in (404, 410):
            return Refused(Failure.FAILED, "the server does not know the job any more", cost_micro=0)
        if answer.status != 200:
            return Running()
        body = document(answer)
        match body.get("status"):
            case "completed" if self._dialect.jobs == "sdcpp":
                result = body.get("result")
                images = at(result, "images")
                outputs = list(self._outputs(images if isinstance(images, list) else [result]))
                return Finished(outputs[:_OUTPUTS_MAX], cost_micro=0, predict_seconds=_seconds(body))
            case "completed":
                return Finished(
                    [Output(url=f"{self._job(ticket)}/content", headers=self._headers())], cost_micro=0
                )
            case "failed":
                error = body.get("error")
                said = f"{text(at(error, 'code'))} {text(at(error, 'message')) or text(error)}"
                return failed(said, _ENDS, cost_micro=0)
            case "cancelled" | "deleted":
                return Refused(Failure.FAILED, f"the job was {body['status']} at the server", cost_micro=0)
            case _:
                return Running()

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`DELETE /v1/videos/{id}` or `POST /sdcpp/v1/jobs/{id}/cancel`, where that stops the job."""
        if not self._dialect.cancels or self.inline(job):
            return None
        if self._dialect.jobs == "sdcpp":
            return Request("POST", f"{self._job(ticket)}/cancel", self._headers())
        return Request("DELETE", self._job(ticket), self._headers())

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """A job that runs on is answered with 409, or as what it is."""
        body = document(answer)
        return answer.status == 200 and (body.get("deleted") is True or body.get("status") == "cancelled")

    def build_check(self) -> Request | None:
        """`GET /v1/models`."""
        return Request("GET", f"{self.base}/v1/models", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Names what the server has."""
        models = document(answer).get("data")
        if answer.status != 200 or not isinstance(models, list):
            return Check(False, told(answer))
        names = [text(at(model, "id")) for model in models[:5]]
        return Check(True, f"{len(models)} models: {', '.join(filter(None, names))}"[:200])

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}"} if self.settings.api_key else {}

    def _job(self, ticket: Accepted) -> str:
        kind = "/sdcpp/v1/jobs" if self._dialect.jobs == "sdcpp" else "/v1/videos"
        return f"{self.base}{kind}/{quote(ticket.upstream_id, safe='')}"

    def _form(self, job: Job, body: Mapping[str, Any], files: Sequence[InputFile]) -> Request:
        """Requests with files, and all for clips, which the servers take as forms only."""
        video = job.model.media == "video"
        fixed = {} if video else self._dialect.fixed
        parts = [Part(name, _plain(value)) for name, value in {**fixed, **body}.items()]
        name = "input_reference" if video else "image"
        for index, file in enumerate(files):
            parts.append(Part(name, file.data, f"{name}-{index}.{file.extension}", file.content_type))
        path = "/v1/videos" if video else "/v1/images/edits"
        return form_request(f"{self.base}{path}", self._headers(), parts)

    def _outputs(self, data: Sequence[Any]) -> Iterator[Output]:
        """Base64, or an address, perhaps on the server itself, which gets the key that all its requests carry."""
        for item in data:
            if encoded := text(at(item, "b64_json")):
                plain = encoded.rpartition(";base64,")[2]
                yield Output(url=f"data:;base64,{plain}")
            elif address := text(at(item, "url")):
                try:
                    url = urljoin(f"{self.base}/", address)
                    yield Output(url=url, headers=self._headers() if same_host(url, self.base) else {})
                except ValueError:
                    continue


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _sized(job: Job, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with the size in pixels, from the ratio, or from the first picture's."""
    sized = dict(params)
    area, multiple = float(sized.pop("megapixels", 1.0)) * _MEGAPIXEL, int(sized.pop("multiple", 16))
    shape = sized.get("size") or next((f"{file.width}:{file.height}" for file in job.files.values()), "1:1")
    sized["width"], sized["height"] = pixels(shape, area=area, multiple=multiple)
    sized["size"] = f"{sized['width']}x{sized['height']}"
    return sized


def _counted(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with a length in frames, of which models draw a multiple of eight after the first."""
    if "seconds" not in params:
        return dict(params)
    rate = params.get("fps", _FRAMES_PER_SECOND)
    return {**params, "num_frames": 8 * round(params["seconds"] * rate / 8) + 1}


def _written(job: Job, urls: str | list[str]) -> str | list[str]:
    """Pictures in JSON."""
    if isinstance(urls, list):
        return [base64.b64encode(job.files[url].data).decode() for url in urls]
    return base64.b64encode(job.files[urls].data).decode()


def _plain(value: Any) -> str:
    """A value of a form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _said(answer: Answer) -> str:
    """What the servers' different errors say: an object with a code, a text, or the details of a validation."""
    body = document(answer)
    return f"{text(at(body, 'error', 'code'))} {told(answer)}"


def _seconds(body: Mapping[str, Any]) -> float | None:
    start, end = number(body.get("started")), number(body.get("completed"))
    return None if start is None or end is None or end < start else end - start
