"""fal: jobs of a queue, polled or called back at addresses that the answer to the submit names.

A job whose answer was lost cannot be found again: fal lists no requests by what they asked for and takes no id of
the caller's.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from babysea_server.catalog.types import Traits
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
    Look,
    Output,
    Provider,
    Refused,
    Request,
    Running,
)
from babysea_server.providers.mapping import Native, native, nested
from babysea_server.providers.signatures import signed_now
from babysea_server.providers.sizes import pixels, shape

_FIRST_POLL_S = {"image": 0.5, "video": 3.0}
_OUTPUTS_MAX = 32
_REST_URL = "https://rest.fal.ai"
#: Part of every address of a job, and what its answer calls it.
_ADDRESSES = {"status_url": "/status", "response_url": "", "cancel_url": "/cancel"}
#: Applications in these places have a name of three parts.
_NAMESPACES = ("workflows", "comfy")
#: Asking about a job that nobody has: credentials are told apart before it is looked for.
_NOBODYS_JOB = "fal-ai/flux/requests/00000000-0000-0000-0000-000000000000/status"

_NAMED_SIZES = {
    "1:1": "square_hd",
    "3:4": "portrait_4_3",
    "4:3": "landscape_4_3",
    "9:16": "portrait_16_9",
    "16:9": "landscape_16_9",
}
_EDGE_MAX = 4096
_STEP = 16

#: What the platform says of a job whose own answer, if there is one, says no more.
_PLATFORM = re.compile(r"(request|startup)_timeout|runner_\w+|client_\w+|internal_error")

_ENDS = (
    Sign(Failure.REFUSED_POLICY, says=r"content_policy_violation|content policy|nsfw|flagged|moderation"),
    Sign(Failure.REFUSED_INPUT, says=r"\bimage_too_large\b", code="BSE2002"),
    Sign(Failure.REFUSED_INPUT, says=r"\bimage_too_small\b", code="BSE2003"),
    Sign(Failure.REFUSED_INPUT, says=r"\bunsupported_\w+_format\b", code="BSE2004"),
    Sign(Failure.REFUSED_INPUT, says=r"\b(image|video|audio|file)_load_error\b", code="BSE2005"),
    Sign(Failure.REFUSED_INPUT, says=r"\bfile_too_large\b", code="BSE2007"),
    Sign(Failure.REFUSED_INPUT, says=r"\bfile_download_error\b", code="BSE2009"),
    Sign(Failure.REFUSED_INPUT, says=r"\b(greater|less)_than|\b(one|multiple)_of\b", code="BSE2008"),
    Sign(Failure.TIMED_OUT, says=r"\b(request|generation)_timeout\b"),
    # The job never began, or what it hands on to has no room: nothing is billed.
    Sign(Failure.REFUSED_BUSY, says=r"startup_timeout|runner_scheduling_failure|runner_connection_"),
    Sign(Failure.REFUSED_BUSY, says=r"downstream_service_unavailable"),
    Sign(Failure.FAILED, says=r"runner_disconnected"),
    Sign(Failure.BAD_OUTPUT, says=r"no_media_generated"),
)
_REFUSALS = (
    Sign(Failure.REFUSED_FUNDS, 403, says=r"locked|balance"),
    Sign(Failure.REFUSED_INPUT, 404),
    *_ENDS,
)


class Fal(Provider):
    """The queue API.

    Options: `priority`: `normal` or `low`; `outputs_expire_s`: how long fal keeps outputs, in seconds, instead of
    its own time; `rest_url`: where the keys of its callbacks are, instead of `https://rest.fal.ai`.
    """

    name = "fal"
    traits = Traits("webhook_with_polling", "queue_cancel_api", "ed25519")
    default_base = "https://queue.fal.run"
    hosts = ("fal.run", "falrun.com", "rest.fal.ai")

    def build_submit(self, job: Job) -> Request:
        """`POST /{model}?fal_webhook`."""
        asked = _inputs(job)
        url = f"{self.base}/{asked.model}"
        if job.callback_url is not None:
            url += f"?{urlencode({'fal_webhook': job.callback_url})}"
        headers = self._headers()
        if job.timeout_s is not None:  # until it begins; later it is canceled
            headers["x-fal-request-timeout"] = str(max(2, round(job.timeout_s)))
        if priority := self.settings.options.get("priority"):
            headers["x-fal-queue-priority"] = priority
        if seconds := self.settings.options.get("outputs_expire_s"):
            headers["x-fal-object-lifecycle-preference"] = f'{{"expiration_duration_seconds":{seconds}}}'
        return json_request("POST", url, headers, nested(asked.params))

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """A place in the queue; values are looked at when the job runs."""
        if answer.status >= 300:
            return _refused_submit(answer)
        body = document(answer)
        upstream_id = text(body.get("request_id"))
        if not upstream_id:
            # It was accepted under an id that we do not know: as good as a lost answer.
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id")
        named = {name: url for name in _ADDRESSES if (url := text(body.get(name))).startswith("http")}
        return Accepted(upstream_id, state=named, poll_after_s=_FIRST_POLL_S[job.model.media])

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET {status_url}`."""
        return Request("GET", self._address(job, ticket, "status_url"), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Look | Finished | Refused:
        """`COMPLETED` says that there is an answer, not which."""
        if answer.status == 404:
            return _lost()
        body = document(answer)
        if answer.status not in (200, 202) or body.get("status") != "COMPLETED":
            return Running()
        if _PLATFORM.fullmatch(code := text(body.get("error_type"))):
            return failed(f"{code}: {text(body.get('error'))}", _ENDS)
        return Look(Request("GET", self._address(job, ticket, "response_url"), self._headers()))

    def read_look(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """`GET {response_url}`: the model's own answer, with its own status."""
        if answer.status == 404:
            return _lost()
        if answer.status != 200:
            return _ended(answer) if _is_own(answer) else Running()
        body = document(answer)
        if not body:  # somebody else's answer
            return Running()
        flags = body.get("has_nsfw_concepts")
        if isinstance(flags, list) and any(flag is True for flag in flags):
            return Refused(Failure.REFUSED_POLICY, "an output was blackened for its content")
        outputs = [Output(url=url) for url in _files(body, job.model.media)][:_OUTPUTS_MAX]
        return Finished(outputs, predict_seconds=number(at(body, "timings", "inference")))

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`PUT {cancel_url}`."""
        return Request("PUT", self._address(job, ticket, "cancel_url"), self._headers())

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """A job that waits is taken out of the queue; one that runs is only asked to stop."""
        return answer.status == 200 and document(answer).get("status") == "OK"

    def build_keys(self) -> Request | None:
        """`GET /.well-known/jwks.json`, which is public."""
        rest_url = self.settings.options.get("rest_url", _REST_URL).rstrip("/")
        return Request("GET", f"{rest_url}/.well-known/jwks.json")

    def read_keys(self, answer: Answer) -> tuple[bytes, ...]:
        """Ed25519 public keys, 32 bytes each."""
        keys = document(answer).get("keys")
        if answer.status != 200 or not isinstance(keys, list):
            return ()
        return tuple(key for entry in keys if len(key := _decoded(text(at(entry, "x")))) == 32)

    def verify_callback(self, callback: Callback, keys: Sequence[bytes]) -> bool:
        """Ed25519 over request, user, time and the SHA-256 of the body, a line each."""
        id, user, timestamp, signature = (
            callback.headers.get(f"x-fal-webhook-{name}", "")
            for name in ("request-id", "user-id", "timestamp", "signature")
        )
        if not id or not signed_now(timestamp, callback.received_at):
            return False
        digest = hashlib.sha256(callback.body).hexdigest()
        message = f"{id}\n{user}\n{timestamp}\n{digest}".encode("utf-8", "replace")
        try:
            given = bytes.fromhex(signature)
        except ValueError:
            return False
        return any(_is_signed(message, given, key) for key in keys)

    def build_check(self) -> Request | None:
        """`GET` the status of a job that nobody has: only who may ask is told that there is none."""
        return Request("GET", f"{self.base}/{_NOBODYS_JOB}", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """404 is the good answer."""
        if answer.status in (200, 202, 400, 404, 422):
            return Check(True, "the key is accepted")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Key {self.settings.api_key}"}

    def _address(self, job: Job, ticket: Accepted, name: str) -> str:
        """As the answer to the submit named it: it leads to where the job is, and lacks part of the model's id."""
        named: Mapping[str, Any] = ticket.state or {}
        if url := text(named.get(name)):
            return url
        model = native(job).model.split("/")
        application = "/".join(model[: 3 if model[0] in _NAMESPACES else 2])
        return f"{self.base}/{application}/requests/{quote(ticket.upstream_id, safe='')}{_ADDRESSES[name]}"


def _inputs(job: Job) -> Native:
    """The model's own inputs: named sizes or pixels where it takes those, lists where it works on references."""
    asked = native(job)
    params = asked.params
    if job.offer.params.get("generation_resolution") == "image_size":
        params["image_size"] = _pixels(job.inputs["generation_ratio"], job.inputs["generation_resolution"])
    elif "image_size" in params:
        params["image_size"] = _named_size(params["image_size"])
    if params.get("output_format") == "jpg":
        params["output_format"] = "jpeg"
    if params.get("seed") == -1:  # any, which not all models have a word for
        del params["seed"]
    if asked.model.endswith("/reference-to-video") and "image_url" in params:
        params["image_urls"] = [params.pop("image_url")]
    return asked


def _named_size(ratio: str) -> str | dict[str, int]:
    """A ratio as the name of a size, else as pixels; what is no ratio is a size already."""
    if ratio in _NAMED_SIZES or shape(ratio) is None:
        return _NAMED_SIZES.get(ratio, ratio)
    return _pixels(ratio, "1K")


def _pixels(ratio: str, tier: str) -> dict[str, int]:
    """A size in this ratio of as many pixels as the tier, such as `2K`, has as a square, but no edge too long."""
    area = (1024 * (number(tier.removesuffix("K")) or 1.0)) ** 2
    across, down = shape(ratio) or (1.0, 1.0)
    longest = max(across / down, down / across)
    width, height = pixels(ratio, area=min(area, _EDGE_MAX**2 / longest), multiple=_STEP, high=_EDGE_MAX)
    if width * height > area:  # by rounding; the tier's area is the most that some models take
        height -= _STEP
    return {"width": width, "height": height}


def _refused_submit(answer: Answer) -> Refused:
    """A gateway that gave up, or lost the queue's answer, does not know what became of the job."""
    is_lost = answer.status == 504 or (answer.status == 502 and "x-fal-request-id" in answer.headers)
    if is_lost and not _codes(answer):
        return Refused(Failure.OUTCOME_UNKNOWN, told(answer))
    return refused(answer, _REFUSALS, _said(answer))


def _ended(answer: Answer) -> Refused:
    """How a job failed, and whether that is known to cost nothing."""
    end = refused(answer, _ENDS, _said(answer))
    is_free = number(answer.headers.get("x-fal-billable-units")) == 0
    return msgspec.structs.replace(end, cost_micro=0) if is_free else end


def _is_own(answer: Answer) -> bool:
    """Whether an error is the job's answer, and not of the way there or `Request is still in progress`."""
    if answer.status < 400 or answer.status in (401, 403, 408, 425, 429):
        return False
    if _codes(answer):
        return True
    detail = document(answer).get("detail")
    if answer.status == 400 and "in progress" in text(detail):
        return False
    return bool(detail) and answer.status not in (502, 503, 504)


def _codes(answer: Answer) -> str:
    """The error's names: of the platform, and of what is wrong with the inputs."""
    body = document(answer)
    detail = body.get("detail")
    types = [text(at(item, "type")) for item in detail[:5]] if isinstance(detail, list) else []
    return " ".join(
        filter(None, (answer.headers.get("x-fal-error-type"), text(body.get("error_type")), *types))
    )


def _said(answer: Answer) -> str:
    return f"{_codes(answer)} {words(document(answer))}"


def _lost() -> Refused:
    return Refused(Failure.FAILED, "fal does not know the request any more")


def _files(body: Mapping[str, Any], media: str) -> Iterator[str]:
    """The addresses of a result's files: most models answer with a list, some with one."""
    for place in (f"{media}s", media):
        found = body.get(place)
        for file in found if isinstance(found, list) else [found]:
            url = file if isinstance(file, str) else text(at(file, "url"))
            if url.startswith(("https://", "http://", "data:")):
                yield url


def _decoded(value: str) -> bytes:
    """URL-safe base64, padded or not; nothing where it is none."""
    try:
        return base64.urlsafe_b64decode(value.rstrip("=") + "==")
    except (binascii.Error, ValueError):
        return b""


def _is_signed(message: bytes, signature: bytes, key: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
