"""Google's Gemini API: Gemini's image models and Imagen, which answer with the picture, and Veo's operations.

What is blocked is answered with HTTP 200. Nothing marks a request as ours and operations cannot be listed, so a
submit whose answer was lost stays unknown; there is no cancel that Veo is known to obey. Callbacks are not used:
where a request would name their address is not documented.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from babysea_server.catalog.types import Traits
from babysea_server.errors import FILE_LOAD_ERROR
from babysea_server.providers.answers import (
    Sign,
    at,
    document,
    failed,
    json_request,
    number,
    refused,
    same_host,
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
    Output,
    Provider,
    Refused,
    Request,
    Running,
)
from babysea_server.providers.inputs import InputFile, InputRule
from babysea_server.providers.mapping import native, nested

_FIRST_POLL_S = 3.0
_OUTPUTS_MAX = 32
#: A request may have 20 MB, files in base64 included; some is left for the rest.
_FILES_MAX = 14 * 1024 * 1024
_PICTURES = frozenset({"image/png", "image/jpeg", "image/webp"})
_FILE_FIELDS = ("generation_input_file", "generation_input_file_last_content")
#: What the models do anyway and take no parameter for.
_ALWAYS = "always"
_TOKEN_PRICE = re.compile(r"([0-9]+(?:\.[0-9]+)?) USD/M (text in|text out|image out)")
_DELAY = re.compile(r"([0-9]+(?:\.[0-9]+)?)s")

_POLICY = Sign(
    Failure.REFUSED_POLICY,
    says=r"responsible ai|sensitive words|usage guidelines|safety (filter|polic)",
)
_BAD_PICTURE = Sign(
    Failure.REFUSED_INPUT, says=r"unable to process input image|image is not valid", code=FILE_LOAD_ERROR.code
)
_REFUSALS = (
    Sign(Failure.REFUSED_AUTH, 400, says=r"API_KEY_INVALID|api key (not valid|expired|not found)"),
    Sign(Failure.REFUSED_AUTH, 400, says=r"location is not supported"),
    Sign(Failure.REFUSED_FUNDS, 400, says=r"billing"),
    Sign(Failure.REFUSED_FUNDS, 403, says=r"billing|dunning"),
    Sign(Failure.REFUSED_FUNDS, 429, says=r"credits are depleted|prepa(id|yment)"),
    Sign(Failure.REFUSED_INPUT, 404),
    msgspec.structs.replace(_POLICY, status=400),
    msgspec.structs.replace(_BAD_PICTURE, status=400),
)
#: Why a candidate holds no picture, as far as its content is why. NO_IMAGE and IMAGE_OTHER are plain failures.
_BLOCKED = frozenset(
    {
        "SAFETY",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "RECITATION",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
#: How operations end in gRPC's numbers.
_ENDS = (
    _POLICY,
    _BAD_PICTURE,
    Sign(Failure.REFUSED_INPUT, says=r"^3 "),
    Sign(Failure.REFUSED_AUTH, says=r"^(7|16) "),
    Sign(Failure.REFUSED_BUSY, says=r"^(8|14) "),
)


class Google(Provider):
    """The Gemini API.

    Options: `person_generation`: whether Imagen and Veo draw people: `dont_allow`, `allow_adult` or `allow_all`;
    by default what Google allows in the account's region.
    """

    name = "google"
    traits = Traits("polling")
    default_base = "https://generativelanguage.googleapis.com/v1beta"
    hosts = ("generativelanguage.googleapis.com",)
    output_life_s = 172_800.0

    def inline(self, job: Job) -> bool:
        """Pictures come with the answer."""
        return job.model.media == "image"

    def input_files(self, job: Job) -> Mapping[str, InputRule]:
        """Every picture, as bytes; together they must fit into one request."""
        urls = [url for field in _FILE_FIELDS for url in _listed(job.inputs.get(field))]
        if not urls:
            return {}
        rule = InputRule(frozenset({"image"}), _FILES_MAX // len(set(urls)), _PICTURES)
        return dict.fromkeys(urls, rule)

    def build_submit(self, job: Job) -> Request:
        """`POST /models/{model}:generateContent`, `:predict` or `:predictLongRunning`, as the pair's route says."""
        asked = native(job)
        path = _route(job).removeprefix("POST ").format(model=quote(asked.model, safe=""))
        params = {target: value for target, value in asked.params.items() if target != _ALWAYS}
        body = _content(job, params) if path.endswith(":generateContent") else self._instance(job, params)
        return json_request("POST", f"{self.base}{path}", self._headers(), body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 holds pictures, a reason why not, or the name of an operation."""
        if answer.status >= 300:
            return _refused(answer)
        body = document(answer)
        if job.model.media == "video":
            name = text(body.get("name"))
            if not name:
                return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an operation")
            return Accepted(name, poll_after_s=_FIRST_POLL_S)
        if "predictions" in body or (_route(job).endswith(":predict") and answer.body.strip() == b"{}"):
            return _predicted(body)
        if "candidates" in body or "promptFeedback" in body:
            return _generated(job, body)
        return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without a picture or a reason")

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /{operation}`."""
        return Request("GET", f"{self.base}/{quote(ticket.upstream_id, safe='/')}", self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The operation, with an error or a response once it is done; 404 is a lost one."""
        if answer.status == 404:
            return Refused(Failure.FAILED, "Google does not know the operation any more")
        body = document(answer)
        if answer.status != 200 or body.get("done") is not True:
            return Running()
        error = body.get("error")
        if isinstance(error, dict):
            return failed(f"{error.get('code')} {words(error)}", _ENDS)
        made = at(body, "response", "generateVideoResponse")
        outputs = list(self._videos(at(made, "generatedSamples")))[:_OUTPUTS_MAX]
        if not outputs and (at(made, "raiMediaFilteredCount") or at(made, "raiMediaFilteredReasons")):
            return Refused(Failure.REFUSED_POLICY, words(at(made, "raiMediaFilteredReasons")) or "filtered")
        return Finished(outputs)

    def build_check(self) -> Request | None:
        """`GET /models?pageSize=1`."""
        return Request("GET", f"{self.base}/models?pageSize=1", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Any list of models will do."""
        return Check(answer.status == 200, "the key is good" if answer.status == 200 else told(answer))

    def _headers(self) -> dict[str, str]:
        return {"x-goog-api-key": self.settings.api_key or ""}

    def _instance(self, job: Job, params: Mapping[str, Any]) -> dict[str, Any]:
        """What Imagen and Veo take: one instance, and parameters."""
        tree = nested(params)
        instance = {
            name: _bytes(job.files[value]) if name in ("image", "lastFrame") else value
            for name, value in tree.get("instances", {}).items()
        }
        parameters = dict(tree.get("parameters", {}))
        if "person_generation" in self.settings.options:
            parameters["personGeneration"] = self.settings.options["person_generation"]
        return {"instances": [instance], "parameters": parameters}

    def _videos(self, samples: Any) -> Iterator[Output]:
        """Files lie with Google for two days and are given to the key's owner only."""
        for sample in samples if isinstance(samples, list) else ():
            if encoded := text(at(sample, "video", "encodedVideo")):
                yield Output(url=f"data:;base64,{encoded}")
            elif uri := text(at(sample, "video", "uri")):
                yield Output(url=uri, headers=self._headers() if self._is_ours(uri) else {})

    def _is_ours(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            return same_host(url, self.base) or (parts.scheme == "https" and parts.netloc in self.hosts)
        except ValueError:
            return False


def _route(job: Job) -> str:
    verb = "predictLongRunning" if job.model.media == "video" else "generateContent"
    return job.offer.route or f"POST /models/{{model}}:{verb}"


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _content(job: Job, params: dict[str, Any]) -> dict[str, Any]:
    """What Gemini takes: one message of a text and pictures, and how to answer it."""
    parts: list[dict[str, Any]] = [{"text": params.pop("contents.text", "")}]
    for url in params.pop("contents.inlineData", []):
        file = job.files[url]
        parts.append({"inlineData": {"mimeType": file.content_type, "data": _base64(file)}})
    searches = params.pop("tools.google_search", False)
    body = nested({"generationConfig.responseModalities": ["TEXT", "IMAGE"], **params})
    body["contents"] = [{"role": "user", "parts": parts}]
    return {**body, "tools": [{"google_search": {}}]} if searches else body


def _base64(file: InputFile) -> str:
    return base64.b64encode(file.data).decode()


def _bytes(file: InputFile) -> dict[str, str]:
    return {"bytesBase64Encoded": _base64(file), "mimeType": file.content_type}


def _refused(answer: Answer) -> Refused:
    error = document(answer).get("error")
    if answer.status == 504 or (answer.status in (502, 503) and not isinstance(error, dict)):
        # It came too late, or from something before the API: the request may have been taken.
        return Refused(Failure.OUTCOME_UNKNOWN, told(answer))
    details = at(error, "details")
    details = details if isinstance(details, list) else []
    reasons = (text(at(detail, "reason")) for detail in details)
    found = refused(answer, _REFUSALS, " ".join((text(at(error, "status")), *reasons, words(error))))
    if found.failure is Failure.REFUSED_BUSY and found.retry_after_s is None:
        delays = (_DELAY.fullmatch(text(at(detail, "retryDelay"))) for detail in details)
        return msgspec.structs.replace(
            found, retry_after_s=next((number(delay[1]) for delay in delays if delay), None)
        )
    return found


def _generated(job: Job, body: Mapping[str, Any]) -> Finished | Refused:
    """Gemini's candidates. Thoughts are drafts; what is blocked says so in the prompt's feedback or at the end."""
    candidates = body.get("candidates")
    candidates = candidates if isinstance(candidates, list) else []
    outputs = [output for candidate in candidates for output in _pictures(candidate)]
    cost_micro = _cost_micro(job, body.get("usageMetadata"))
    if outputs:
        return Finished(outputs[:_OUTPUTS_MAX], cost_micro, upstream_id=text(body.get("responseId")) or None)
    reason = text(at(body, "promptFeedback", "blockReason"))
    ends = [text(at(candidate, "finishReason")) for candidate in candidates]
    blocked = reason or next((end for end in ends if end in _BLOCKED), "")
    if blocked:
        return Refused(Failure.REFUSED_POLICY, f"blocked: {blocked[:100]}", cost_micro=cost_micro)
    return Finished([], cost_micro)


def _pictures(candidate: Any) -> Iterator[Output]:
    parts = at(candidate, "content", "parts")
    for part in parts if isinstance(parts, list) else ():
        encoded = text(at(part, "inlineData", "data"))
        of_a_picture = text(at(part, "inlineData", "mimeType")).startswith("image/")
        if encoded and of_a_picture and at(part, "thought") is not True:
            yield Output(url=f"data:;base64,{encoded}")


def _predicted(body: Mapping[str, Any]) -> Finished | Refused:
    """Imagen's predictions. Filtered pictures are missing, or leave a reason."""
    predictions = body.get("predictions")
    predictions = predictions if isinstance(predictions, list) else []
    encoded = [text(at(prediction, "bytesBase64Encoded")) for prediction in predictions]
    outputs = [Output(url=f"data:;base64,{picture}") for picture in encoded if picture]
    if outputs:
        return Finished(outputs[:_OUTPUTS_MAX])
    reasons = (text(at(prediction, "raiFilteredReason")) for prediction in predictions)
    return Refused(Failure.REFUSED_POLICY, next(filter(None, reasons), "all pictures were filtered")[:500])


def _cost_micro(job: Job, usage: Any) -> int | None:
    """What the tokens cost by the catalog's `usd_formula`; None where a count or a price is missing.

    Dollars per million tokens are micro-dollars per token. Pictures that are sent cost as text does, and thoughts
    as text that is drawn.
    """
    formula = text(job.offer.raw.get("usd_formula"))
    prices = {kind: float(price) for price, kind in _TOKEN_PRICE.findall(formula)}
    sent, drawn = number(at(usage, "promptTokenCount")), number(at(usage, "candidatesTokenCount"))
    details = at(usage, "candidatesTokensDetails")
    if sent is None or drawn is None or not isinstance(details, list) or len(prices) < 3:
        return None
    of_pictures = (number(at(item, "tokenCount")) for item in details if at(item, "modality") == "IMAGE")
    pictures = min(sum(count or 0.0 for count in of_pictures), drawn)
    written = drawn - pictures + (number(at(usage, "thoughtsTokenCount")) or 0.0)
    return round(sent * prices["text in"] + written * prices["text out"] + pictures * prices["image out"])
