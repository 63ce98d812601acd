"""fal's queue API: submit, status, result, cancel, signed callbacks and the keys they are verified with.

Values are looked at when a job runs, as fal does: a wrong one is accepted and its result is a 422. Beside the
shared words, `[fal:<word>]` in a prompt asks for what only this platform does; see `_OWN_WORDS`.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.emulators.kit import (
    SECRET,
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    asked_for,
    json,
)

_SEED = bytes(range(32))
_VIDEO = re.compile(r"video|veo|ray-2|seedance|animate")
_NAMESPACES = ("workflows", "comfy")
_OWN_WORD = re.compile(r"\[fal:([a-z-]+)\]")
_SIZES = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")
_LOCKED = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."

#: Failures by the platform: the error's type, its status, what it says.
_PLATFORM = {
    Misbehavior.NO_CAPACITY: ("runner_scheduling_failure", 503, "No runner could be scheduled"),
}
_OWN_PLATFORM = {
    "startup-timeout": ("startup_timeout", 504, "The runner did not start in time"),
    "request-timeout": ("request_timeout", 504, "Request timed out"),
    "disconnected": ("runner_disconnected", 503, "The runner disconnected"),
    "incomplete": ("runner_incomplete_response", 502, "The runner's response was incomplete"),
    "platform-error": ("internal_error", 500, "Internal error"),
}
#: Failures by the model: status, the detail's type, what it says.
_MODEL = {
    Misbehavior.MODERATED_INPUT: (
        422,
        "content_policy_violation",
        "The prompt was flagged by a content checker",
    ),
    Misbehavior.BAD_INPUT: (422, "greater_than_equal", "Input should be greater than or equal to 1"),
    Misbehavior.INTERNAL_ERROR: (500, "internal_server_error", "The model failed"),
}
_OWN_MODEL = {
    "image-too-large": (422, "image_too_large", "Image dimensions are too large"),
    "image-too-small": (422, "image_too_small", "Image dimensions are too small"),
    "image-unreadable": (422, "image_load_error", "Failed to load the image"),
    "file-unreachable": (422, "file_download_error", "Failed to download the file"),
    "file-too-large": (422, "file_too_large", "File size exceeds the limit"),
    "generation-timeout": (504, "generation_timeout", "Generation timed out"),
    "downstream-busy": (503, "downstream_service_unavailable", "The service has no capacity"),
    "nothing-made": (422, "no_media_generated", "No media was generated"),
}
_OWN_WORDS = {*_OWN_PLATFORM, *_OWN_MODEL, "early-result", "gateway-timeout"}


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://", "data:"))


def _is_size(value: Any) -> bool:
    if isinstance(value, dict):
        sides = value.get("width"), value.get("height")
        return set(value) == {"width", "height"} and all(
            isinstance(side, int) and 0 < side <= 14142 for side in sides
        )
    return value in _SIZES or (
        isinstance(value, str) and re.fullmatch(r"auto(_[234]K)?|\d+x\d+", value) is not None
    )


def _one_of(*values: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in values


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


#: What each documented parameter takes, whatever the model. Others are ignored, as fal ignores them.
_TAKES: Mapping[str, Callable[[Any], bool]] = {
    "prompt": lambda value: isinstance(value, str) and value != "",
    "negative_prompt": lambda value: isinstance(value, str),
    "image_size": _is_size,
    "aspect_ratio": lambda value: (
        isinstance(value, str) and re.fullmatch(r"auto|[\d.]+:[\d.]+", value) is not None
    ),
    "num_images": lambda value: _is_integer(value) and 1 <= value <= 10,
    "max_images": lambda value: _is_integer(value) and 1 <= value <= 6,
    "num_inference_steps": lambda value: _is_integer(value) and value >= 1,
    "guidance_scale": _is_number,
    "cfg_scale": _is_number,
    "seed": _is_integer,
    "sync_mode": lambda value: isinstance(value, bool),
    "enable_safety_checker": lambda value: isinstance(value, bool),
    "generate_audio": lambda value: isinstance(value, bool),
    "output_format": _one_of("jpeg", "png", "webp"),
    "safety_tolerance": _one_of("1", "2", "3", "4", "5", "6"),
    "image_urls": lambda value: isinstance(value, list) and all(map(_is_url, value)),
    "video_urls": lambda value: isinstance(value, list) and all(map(_is_url, value)),
    **dict.fromkeys(
        ("image_url", "end_image_url", "tail_image_url", "mask_url", "video_url", "audio_url"), _is_url
    ),
}
#: How families spell a clip's length.
_DURATIONS = (
    (re.compile(r"/(kling-video|seedance|pixverse|hailuo|wan-25)"), r"auto|\d+"),
    (re.compile(r"/(veo|luma-dream-machine)"), r"\d+s"),
)


class FalEmulator(Emulator):
    """Jobs complete when they are asked about often enough, and call back then."""

    provider: ClassVar[str] = "fal"

    def __init__(self) -> None:
        super().__init__()
        self._key = Ed25519PrivateKey.from_private_bytes(_SEED)

    def routes(self) -> list[web.RouteDef]:
        """The queue, and the host of the keys, here the same."""
        job = "/{application:.+}/requests/{id}"
        return [
            web.get("/.well-known/jwks.json", self.keys),
            web.get(f"{job}/status", self.status),
            web.put(f"{job}/cancel", self.cancel),
            web.get(job, self.result),
            web.post("/{model:.+}", self.submit),
        ]

    def settings(self) -> dict[str, Any]:
        """With where the keys are."""
        return {**super().settings(), "options": {"rest_url": self.origin}}

    def authorized(self, request: web.Request) -> bool:
        """`Key`, not `Bearer`."""
        return request.headers.get("authorization") == f"Key {SECRET}"

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST /{model}?fal_webhook`."""
        received = await self.receive(request)
        assert isinstance(received.body, dict), "the model's inputs are the body"
        assert set(received.query) <= {"fal_webhook", "fal_max_queue_length"}
        prompt = str(received.body.get("prompt", ""))
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return _unauthorized()
        refusal = self._refusal(behavior)
        if refusal is not None:
            return refusal
        model = request.match_info["model"]
        if model.count("/") < 1:
            return json(404, {"detail": f"Path /{model} not found"})
        job = self.new_job(
            str(UUID(int=self.number())),
            prompt,
            received,
            media="video" if _VIDEO.search(model) else "image",
            count=_count(received.body),
            callback_url=received.query.get("fal_webhook"),
            extra={"application": _application(model), "fault": _fault(model, received.body)},
        )
        own = _own_word(job)
        if own == "gateway-timeout":
            return web.Response(status=504, text="<html>Gateway Time-out</html>", content_type="text/html")
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if behavior is Misbehavior.CALLBACK_EARLY:
            self.call_back(job, lambda forged: self._signed(job, forged, 200, self._payload(job)))
        return json(200, {"status": "IN_QUEUE", "queue_position": 0, **self._about(job)})

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.NO_BALANCE:
                return json(403, {"detail": _LOCKED})
            case Misbehavior.RATE_LIMITED:
                return json(429, {"detail": "Too many requests"})
        return None

    async def status(self, request: web.Request) -> web.StreamResponse:
        """`GET {status_url}`: 202 until it is `COMPLETED`, well or badly."""
        await self.receive(request)
        if not self.authorized(request):
            return _unauthorized()
        job = self._job(request)
        if job is None:
            return _unknown(request)
        if not job.canceled and not self.is_done(job):
            status = "IN_QUEUE" if job.polls == 0 else "IN_PROGRESS"
            return json(202, {"status": status, "logs": None, **self._about(job)})
        answer = {"status": "COMPLETED", "logs": None, "metrics": {"inference_time": 0.7}, **self._about(job)}
        platform = self._platform_error(job)
        if platform is not None:
            answer |= {"error": platform[2], "error_type": platform[0]}
        if not job.extra.get("completed"):
            job.extra["completed"] = True
            code, payload, _ = self._ending(job)
            self.call_back(job, lambda forged: self._signed(job, forged, code, payload))
        return json(200, answer)

    async def result(self, request: web.Request) -> web.StreamResponse:
        """`GET {response_url}`: the model's answer, or why there is none."""
        await self.receive(request)
        if not self.authorized(request):
            return _unauthorized()
        job = self._job(request)
        if job is None:
            return _unknown(request)
        is_early = _own_word(job) == "early-result" and not job.extra.get("looked")
        if is_early or not job.extra.get("completed"):
            job.extra["looked"] = True
            return json(400, {"detail": "Request is still in progress"})
        code, payload, headers = self._ending(job)
        return json(code, payload, {"x-fal-request-id": job.id, **headers})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`PUT {cancel_url}`: out of the queue, or a wish."""
        await self.receive(request)
        if not self.authorized(request):
            return _unauthorized()
        job = self._job(request)
        if job is None:
            return json(404, {"status": "NOT_FOUND"})
        if job.extra.get("completed"):
            return json(400, {"status": "ALREADY_COMPLETED"})
        job.canceled = True
        if job.polls == 0:
            return json(200, {"status": "OK"})
        return json(202, {"status": "CANCELLATION_REQUESTED"})

    async def keys(self, request: web.Request) -> web.StreamResponse:
        """`GET /.well-known/jwks.json`: an older key beside the one in use."""
        await self.receive(request)
        assert "authorization" not in request.headers, "the keys are public"
        older = Ed25519PrivateKey.from_private_bytes(bytes(32))
        return json(200, {"keys": [_jwk(older), _jwk(self._key)]})

    def _job(self, request: web.Request) -> EmulatedJob | None:
        """The job, if it is asked for under its own application."""
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.LOST_JOB:
            return None
        return job if job.extra["application"] == request.match_info["application"] else None

    def _about(self, job: EmulatedJob) -> dict[str, Any]:
        url = f"{self.origin}/{job.extra['application']}/requests/{job.id}"
        return {
            "request_id": job.id,
            "response_url": url,
            "status_url": f"{url}/status",
            "cancel_url": f"{url}/cancel",
        }

    def _platform_error(self, job: EmulatedJob) -> tuple[str, int, str] | None:
        if job.canceled:
            return "client_cancelled", 499, "The request was cancelled by the client"
        if job.behavior in _PLATFORM:
            return _PLATFORM[job.behavior]
        return _OWN_PLATFORM.get(_own_word(job))

    def _ending(self, job: EmulatedJob) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers of the result."""
        platform = self._platform_error(job)
        if platform is not None:
            code, status, says = platform
            return status, {"detail": says, "error_type": code}, {"x-fal-error-type": code}
        failure = _MODEL[job.behavior] if job.behavior in _MODEL else _OWN_MODEL.get(_own_word(job))
        if job.behavior is Misbehavior.MODERATED_OUTPUT and job.media == "video":
            failure = 422, "content_policy_violation", "The output was flagged by a content checker"
        if failure is not None:
            return failure[0], _detail("prompt", failure[1], failure[2]), {}
        if job.extra["fault"] is not None:
            fault = _detail(job.extra["fault"], "value_error", "Input is not valid")
            return 422, fault, {"x-fal-billable-units": "0"}
        return 200, self._payload(job), {"x-fal-billable-units": str(job.count)}

    def _payload(self, job: EmulatedJob) -> dict[str, Any]:
        """The model's own output."""
        if job.media == "video":
            if job.behavior is Misbehavior.NO_OUTPUT:
                return {"video": None, "seed": 7}
            file = {"content_type": "video/mp4", "file_name": "output.mp4", "file_size": 13096}
            return {"video": {"url": self.file_url(job), **file}, "seed": 7}
        count = 1 if job.behavior is Misbehavior.PARTIAL_BATCH else job.count
        count = 0 if job.behavior is Misbehavior.NO_OUTPUT else count
        is_black = job.behavior is Misbehavior.MODERATED_OUTPUT
        return {
            "images": [
                {"url": self.file_url(job, index), "content_type": "image/png", "width": 64, "height": 64}
                for index in range(count)
            ],
            "timings": {"inference": 0.31},
            "seed": 7,
            "has_nsfw_concepts": [is_black] * count,
            "prompt": job.prompt,
        }

    def _signed(
        self, job: EmulatedJob, forged: bool, code: int, payload: Mapping[str, Any]
    ) -> tuple[dict[str, str], bytes]:
        ending = (
            {"status": "OK"} if code == 200 else {"status": "ERROR", "error": f"Invalid status code: {code}"}
        )
        body = msgspec.json.encode(
            {"request_id": job.id, "gateway_request_id": job.id, **ending, "payload": payload}
        )
        timestamp = str(int(datetime.now(UTC).timestamp()))
        message = "\n".join((job.id, "user_1", timestamp, hashlib.sha256(body).hexdigest()))
        key = Ed25519PrivateKey.from_private_bytes(bytes(reversed(_SEED))) if forged else self._key
        headers = {
            "content-type": "application/json",
            "x-fal-webhook-request-id": job.id,
            "x-fal-webhook-user-id": "user_1",
            "x-fal-webhook-timestamp": timestamp,
            "x-fal-webhook-signature": key.sign(message.encode()).hex(),
        }
        return headers, body


def _own_word(job: EmulatedJob) -> str:
    found = _OWN_WORD.search(job.prompt)
    word = found[1] if found else ""
    assert word in {"", *_OWN_WORDS}, f"there is no word {word!r}"
    return word


def _application(model: str) -> str:
    parts = model.split("/")
    return "/".join(parts[: 3 if parts[0] in _NAMESPACES else 2])


def _count(body: Mapping[str, Any]) -> int:
    asked = body.get("num_images", body.get("max_images"))
    return asked if isinstance(asked, int) else 1


def _fault(model: str, body: Mapping[str, Any]) -> str | None:
    """The first parameter with a value that the model does not take."""
    for name, value in body.items():
        takes = _TAKES.get(name)
        if takes is not None and not takes(value):
            return name
    if "duration" in body:
        spelled = next((text for family, text in _DURATIONS if family.search(model)), None)
        value = body["duration"]
        if spelled is not None and not (isinstance(value, str) and re.fullmatch(spelled, value)):
            return "duration"
    if "image-to-video" in model and not {"image_url", "start_image_url", "video_url"} & set(body):
        return "image_url"
    return None


def _detail(parameter: str, type: str, says: str) -> dict[str, Any]:
    return {
        "detail": [
            {
                "loc": ["body", parameter],
                "msg": says,
                "type": type,
                "url": f"https://docs.fal.ai/errors#{type}",
            }
        ]
    }


def _jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(raw)}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unauthorized() -> web.Response:
    return json(401, {"detail": "Unauthorized"})


def _unknown(request: web.Request) -> web.Response:
    return json(404, {"detail": f"Request {request.match_info['id']} not found"})
