"""ComfyUI's own API: a prompt is queued, runs on one's own GPU, and is found in the history afterwards.

The attempt's id is the prompt's id. So a submit whose answer was lost is followed as if it had been answered, and
polling tells whether it arrived: a prompt goes from the queue to the history in one step, and is asked for in that
order, so one that is in neither is not there. Cancels are one request, and ComfyUI has one for what waits and
another for what runs; neither tells whether it did anything, so no cancel is ever confirmed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from babysea_server.catalog.types import Traits
from babysea_server.errors import FILE_LOAD_ERROR, FILE_SIZE_EXCEEDED, PARAMETER_OUT_OF_RANGE
from babysea_server.providers.answers import (
    Part,
    Sign,
    at,
    document,
    form_request,
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
    Look,
    NeverSentError,
    NotFound,
    Output,
    Provider,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.providers.comfyui.templates import Template, load_templates
from babysea_server.providers.inputs import InputRefusedError, InputRule
from babysea_server.providers.mapping import native
from babysea_server.providers.sizes import pixels
from babysea_server.settings import ProviderSettings, SettingsError

_FIRST_POLL_S = {"image": 1.0, "video": 3.0}
_MEGAPIXEL = 1024 * 1024
_FRAMES_PER_SECOND = 16
_OUTPUTS_MAX = 32
_FILE_MAX = 64 * 1024 * 1024
_FILE_KINDS: Mapping[str, InputRule] = {
    "image": InputRule(frozenset({"image"}), _FILE_MAX, frozenset({"image/png", "image/jpeg", "image/webp"})),
    "video": InputRule(frozenset({"video"}), _FILE_MAX),
    "audio": InputRule(frozenset({"audio"}), _FILE_MAX),
}
_FOLDER = "babysea"
#: Nodes of ComfyUI write PNG; it converts when a file is viewed.
_VIEWS = {"jpg": "jpeg", "webp": "webp"}
_VIEW_QUALITY = 95
_VIDEO_ENDINGS = (".mp4", ".webm", ".mov", ".mkv", ".gif")
_CANCELS = ("interrupt", "queue", "jobs")

#: By error and node types, never by what ComfyUI says in words, which may repeat the request.
_REFUSALS = (
    Sign(Failure.REFUSED_INPUT, 400, says=r"value_(smaller|bigger)_than", code=PARAMETER_OUT_OF_RANGE.code),
    Sign(Failure.REFUSED_INPUT, 400, says=r"LoadImage\.\w+ custom_validation", code=FILE_LOAD_ERROR.code),
    Sign(Failure.OUTCOME_UNKNOWN, 502),
    Sign(Failure.OUTCOME_UNKNOWN, 504),
)
_ENDS = (
    Sign(Failure.REFUSED_BUSY, says=r"OutOfMemory"),
    Sign(Failure.REFUSED_INPUT, says=r"UnidentifiedImage|in LoadImage$", code=FILE_LOAD_ERROR.code),
)


class ComfyUI(Provider):
    """A ComfyUI server. `api_key` is sent as a bearer token where it is set, for a proxy in front of it.

    Options: `workflows`: a directory of templates, `<name>.json` each, over those that come with BabySea; a catalog
    entry's `model` is such a name. `cancel`: how a job is stopped: `interrupt` (default; stops what runs, on servers
    since autumn 2025), `queue` (removes what waits), or `jobs` (either, on servers that have it).
    """

    name = "comfyui"
    traits = Traits("polling", "queue_cancel_api")
    needs = ("base_url",)

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        directory = settings.options.get("workflows")
        self._templates = load_templates(Path(directory) if directory else None)
        self._cancel = settings.options.get("cancel", _CANCELS[0])
        if self._cancel not in _CANCELS:
            raise SettingsError(f"providers.comfyui.options.cancel is one of {', '.join(_CANCELS)}")

    def input_files(self, job: Job) -> Mapping[str, InputRule]:
        """Every file: ComfyUI fetches nothing."""
        rules: dict[str, InputRule] = {}
        for field in _file_fields(job):
            kind = next((kind for kind in ("video", "audio") if kind in field), "image")
            value = job.inputs[field]
            rules |= dict.fromkeys(value if isinstance(value, list) else [value], _FILE_KINDS[kind])
        return rules

    def build_uploads(self, job: Job) -> Sequence[Request]:
        """`POST /upload/image`, for each file."""
        return [
            form_request(
                f"{self.base}/upload/image",
                self._headers(),
                [
                    Part("image", file.data, f"{job.attempt_id}-{index}.{file.extension}", file.content_type),
                    Part("type", "input"),
                    Part("subfolder", _FOLDER),
                    Part("overwrite", "true"),
                ],
            )
            for index, file in enumerate(job.files.values())
        ]

    def build_submit(self, job: Job) -> Request:
        """`POST /prompt`.

        Raises:
            ValueError: there is no such template, or it wants what the request does not give.
            InputRefusedError, NeverSentError: an upload was refused.
        """
        asked = native(job)
        template = self._templates.get(asked.model)
        if template is None:
            raise ValueError(f"there is no workflow {asked.model!r}")
        body = {
            "prompt": template.filled(_values(job, asked.params, template)),
            "prompt_id": str(job.attempt_id),
            "client_id": _FOLDER,
        }
        return json_request("POST", f"{self.base}/prompt", self._headers(), body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 repeats the prompt's id; `node_errors` beside it tell of outputs that are left out."""
        if answer.status >= 300:
            return _refused(answer)
        prompt_id = text(document(answer).get("prompt_id"))
        if not prompt_id:
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id", cost_micro=0)
        return Accepted(prompt_id, poll_after_s=_FIRST_POLL_S[job.model.media])

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /queue`."""
        return Request("GET", f"{self.base}/queue", self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Look | Finished | Refused:
        """What waits and what runs; anything else is looked for with `GET /history/{id}`."""
        body = document(answer)
        parts = [body.get("queue_running"), body.get("queue_pending")]
        if answer.status != 200 or not all(isinstance(part, list) for part in parts):
            return Running()
        if any(at(item, 1) == ticket.upstream_id for part in parts for item in part or ()):
            return Running()
        history = f"{self.base}/history/{quote(ticket.upstream_id, safe='')}"
        return Look(Request("GET", history, self._headers()))

    def read_look(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The history's entry; an empty history knows nothing of the prompt."""
        entry = document(answer).get(ticket.upstream_id)
        if answer.status != 200 or (entry is None and answer.body.strip() != b"{}"):
            return Running()
        if entry is None:
            return Refused(Failure.FAILED, "ComfyUI knows nothing of the prompt", cost_micro=0)
        messages = _messages(at(entry, "status", "messages"))
        if at(entry, "status", "status_str") == "error":
            return _ended(messages)
        outputs = list(self._outputs(job, at(entry, "outputs")))[:_OUTPUTS_MAX]
        return Finished(outputs, cost_micro=0, predict_seconds=_seconds(messages))

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`POST /interrupt`, `POST /queue` or `POST /api/jobs/{id}/cancel`, as the option says."""
        id = ticket.upstream_id
        ways: dict[str, tuple[str, dict[str, Any]]] = {
            "interrupt": ("/interrupt", {"prompt_id": id}),
            "queue": ("/queue", {"delete": [id]}),
            "jobs": (f"/api/jobs/{quote(id, safe='')}/cancel", {}),
        }
        path, body = ways[self._cancel]
        return json_request("POST", f"{self.base}{path}", self._headers(), body)

    def build_reconcile(self, job: Job) -> Request | None:
        """`GET /queue`, to see that the server is there."""
        return Request("GET", f"{self.base}/queue", self._headers())

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        """The id is ours, so polling decides: it finds the prompt, or finds that there is none."""
        if answer.status != 200 or not isinstance(document(answer).get("queue_pending"), list):
            return Unclear()
        return Accepted(str(job.attempt_id), poll_after_s=0.0)

    def build_check(self) -> Request | None:
        """`GET /system_stats`."""
        return Request("GET", f"{self.base}/system_stats", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Names the version and the device."""
        body = document(answer)
        if answer.status != 200 or not isinstance(body.get("system"), dict):
            return Check(False, told(answer))
        version = text(at(body, "system", "comfyui_version")) or "of an unknown version"
        device = text(at(body, "devices", 0, "name")) or "an unknown device"
        return Check(True, f"ComfyUI {version} on {device}")

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}"} if self.settings.api_key else {}

    def _outputs(self, job: Job, outputs: Any) -> Iterator[Output]:
        """`GET /view` of every file that was saved, or of the previews where nothing was."""
        files = [file for file in _files(outputs) if _is_video(file) == (job.model.media == "video")]
        saved = [file for file in files if file.get("type") == "output"]
        asked = native(job).params
        for file in saved or files:
            query = {name: text(file.get(name)) for name in ("filename", "subfolder", "type")}
            view = _VIEWS.get(str(asked.get("format")))
            if view is not None and job.model.media == "image":
                query["preview"] = f"{view};{asked.get('quality', _VIEW_QUALITY)}"
            yield Output(
                url=f"{self.base}/view?{urlencode(query, errors='replace')}", headers=self._headers()
            )


def _file_fields(job: Job) -> list[str]:
    """Our names of the fields that bring files which the pair has a place for."""
    fields = job.model.fields
    return [
        name
        for name in job.offer.params
        if name in job.inputs and name in fields and fields[name].type in ("url", "url-array")
    ]


def _values(job: Job, params: Mapping[str, Any], template: Template) -> dict[str, Any]:
    """What the template's places are filled with."""
    values = dict(params)
    area = float(values.pop("megapixels", 1.0)) * _MEGAPIXEL
    multiple = int(values.pop("multiple", 16))
    shape = values.pop("ratio", None)
    if shape is None:
        shape = next((f"{file.width}:{file.height}" for file in job.files.values()), "1:1")
    values["width"], values["height"] = pixels(shape, area=area, multiple=multiple)
    values["seed"] = job.seed  # always one: ComfyUI repeats nothing that it has done already
    values["prefix"] = f"{_FOLDER}/{job.attempt_id}"
    if "seconds" in values and "frames" not in values:
        rate = values.get("fps") or template.default("fps") or _FRAMES_PER_SECOND
        values["frames"] = 4 * round(values["seconds"] * rate / 4) + 1
    uploaded = _uploaded(job)
    for field in _file_fields(job):
        place = job.offer.params[field].removesuffix("[]")
        value = values[place]
        for index, url in enumerate(value if isinstance(value, list) else [value]):
            values[f"{place}_{index + 1}" if index else place] = uploaded[url]
    return values


def _uploaded(job: Job) -> dict[str, str]:
    """By URL: the names by which the server has the files."""
    names: dict[str, str] = {}
    for url, answer in zip(job.files, job.uploads, strict=True):
        body = document(answer)
        name, folder = text(body.get("name")), text(body.get("subfolder"))
        if answer.status == 413:
            raise InputRefusedError(FILE_SIZE_EXCEEDED.code, "the file is larger than ComfyUI takes")
        if answer.status != 200 or not name:
            raise NeverSentError(f"ComfyUI did not take a file: {told(answer)}")
        names[url] = f"{folder}/{name}" if folder else name
    return names


def _refused(answer: Answer) -> Refused:
    """A refusal by the types of its errors: the whole workflow's, then each node's with the input at fault."""
    body = document(answer)
    kinds = [text(at(body, "error", "type"))]
    nodes = body.get("node_errors")
    for node in nodes.values() if isinstance(nodes, dict) else ():
        errors = at(node, "errors")
        for error in errors if isinstance(errors, list) else ():
            place = f"{text(at(node, 'class_type'))}.{text(at(error, 'extra_info', 'input_name'))}"
            kinds.append(f"{place} {text(at(error, 'type'))}")
    said = "; ".join(filter(None, kinds))
    found = refused(answer, _REFUSALS, said)
    message = f"HTTP {answer.status}: {said}"[:500] if said else found.message
    return Refused(found.failure, message, found.code, found.retry_after_s, cost_micro=0)


def _messages(messages: Any) -> dict[str, dict[str, Any]]:
    """What happened, by its name."""
    found = messages if isinstance(messages, list) else []
    return {text(at(item, 0)): data for item in found if isinstance(data := at(item, 1), dict)}


def _ended(messages: Mapping[str, Mapping[str, Any]]) -> Refused:
    if "execution_interrupted" in messages:
        return Refused(Failure.FAILED, "the prompt was interrupted at ComfyUI", cost_micro=0)
    error = messages.get("execution_error", {})
    said = f"{text(error.get('exception_type')) or 'an error'} in {text(error.get('node_type')) or 'a node'}"
    sign = next((sign for sign in _ENDS if sign.fits(0, said)), Sign(Failure.FAILED))
    return Refused(sign.failure, said[:500], sign.code, cost_micro=0)


def _seconds(messages: Mapping[str, Mapping[str, Any]]) -> float | None:
    """From start to success; both in milliseconds."""
    start, end = (
        number(messages.get(f"execution_{name}", {}).get("timestamp")) for name in ("start", "success")
    )
    return None if start is None or end is None or end < start else (end - start) / 1000


def _files(outputs: Any) -> Iterator[dict[str, Any]]:
    """Every file that the nodes tell of; nodes that save videos use other keys than those that save pictures."""
    for node in outputs.values() if isinstance(outputs, dict) else ():
        for key in ("images", "gifs", "videos"):
            files = at(node, key)
            for file in files if isinstance(files, list) else ():
                if isinstance(file, dict) and text(file.get("filename")):
                    yield file


def _is_video(file: Mapping[str, Any]) -> bool:
    return text(file.get("filename")).lower().endswith(_VIDEO_ENDINGS)
