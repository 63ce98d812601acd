"""Black Forest Labs' tasks API: submit a task, ask for it at its own address, the balance.

A task lives in one region: `/v1` is every region's door, and tells of those tasks only that call back, which stand
for tasks of a regional host; all others are found under the address that came with them.
"""

import base64
import binascii
import hashlib
import hmac
import io
from typing import Any, ClassVar
from uuid import UUID

import jsonschema_rs
import msgspec
from aiohttp import web
from PIL import Image, UnidentifiedImageError
from tests.emulators.kit import (
    SECRET,
    SECRET_MARK,
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    asked_for,
    json,
)

WEBHOOK_SECRET = f"{SECRET_MARK}-webhooks"

_REGION = "/us1"
_OPTIONAL_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_BASE64: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9+/]+={0,2}$"}
_PICTURE: dict[str, Any] = {"type": "string", "pattern": "^(https?://|[A-Za-z0-9+/]+={0,2}$)"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_RATIO: dict[str, Any] = {"type": "string", "pattern": r"^\d+:\d+$"}


def _whole(low: int, high: int, multiple: int = 1) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "multipleOf": multiple}


def _real(low: float, high: float) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high}


def _inputs(required: list[str], own: dict[str, Any], *, tolerance: int = 6) -> dict[str, Any]:
    common = {
        "prompt": {"type": "string"},
        "seed": {"type": "integer"},
        "safety_tolerance": _whole(0, tolerance),
        "output_format": {"enum": ["jpeg", "png", "webp"]},
        "webhook_url": {"type": "string", "minLength": 1, "maxLength": 2083},
        "webhook_secret": _OPTIONAL_TEXT,
    }
    return {
        "type": "object",
        "required": required,
        "properties": {**common, **own},
        "additionalProperties": False,
    }


def _flux2(pictures: int, **own: dict[str, Any]) -> dict[str, Any]:
    names = ["input_image", *(f"input_image_{position}" for position in range(2, pictures + 1))]
    sides = {side: {"type": "integer", "minimum": 64, "multipleOf": 16} for side in ("width", "height")}
    return _inputs(["prompt"], {**sides, **dict.fromkeys(names, _PICTURE), **own}, tolerance=5)


_SIDES = {"width": _whole(256, 1440, 32), "height": _whole(256, 1440, 32)}
_KONTEXT = _inputs(["prompt"], {"input_image": _PICTURE, "aspect_ratio": _RATIO, "prompt_upsampling": _FLAG})
_REMIX = {"image_prompt": _BASE64, "prompt_upsampling": _FLAG}
_STEERED = {"steps": _whole(1, 50), "guidance": _real(1.5, 5)}

#: What each model takes, by its path.
SCHEMAS: dict[str, dict[str, Any]] = {
    "flux-2-pro": _flux2(8, disable_pup=_FLAG),
    "flux-2-max": _flux2(8, disable_pup=_FLAG),
    "flux-2-flex": _flux2(8, prompt_upsampling=_FLAG, guidance=_real(1.5, 10), steps=_whole(1, 50)),
    "flux-2-klein-4b": _flux2(4),
    "flux-2-klein-9b": _flux2(4),
    "flux-kontext-pro": _KONTEXT,
    "flux-kontext-max": _KONTEXT,
    "flux-pro-1.1": _inputs([], {**_SIDES, **_REMIX}),
    "flux-pro-1.1-ultra": _inputs(
        [], {**_REMIX, "aspect_ratio": _RATIO, "raw": _FLAG, "image_prompt_strength": _real(0, 1)}
    ),
    "flux-dev": _inputs([], {**_SIDES, **_REMIX, **_STEERED}),
    "flux-pro": _inputs([], {**_SIDES, **_REMIX, **_STEERED}),
    "flux-pro-1.0-fill": _inputs(
        ["image"],
        {
            "image": _BASE64,
            "mask": _BASE64,
            "steps": _whole(15, 50),
            "guidance": _real(1.5, 100),
            "prompt_upsampling": _FLAG,
        },
    ),
}
_VALIDATORS = {model: jsonschema_rs.Draft202012Validator(schema) for model, schema in SCHEMAS.items()}
#: How FastAPI says what JSON Schema says.
_SAYINGS = {
    "minimum": ("greater_than_equal", "Input should be greater than or equal to the minimum"),
    "maximum": ("less_than_equal", "Input should be less than or equal to the maximum"),
    "multipleOf": ("multiple_of", "Input should be a multiple of the step"),
    "additionalProperties": ("extra_forbidden", "Extra inputs are not permitted"),
    "required": ("missing", "Field required"),
    "enum": ("enum", "Input should be 'jpeg', 'png' or 'webp'"),
}


def _detail(status: int, detail: Any) -> web.Response:
    return json(status, {"detail": detail})


def _fault(error: jsonschema_rs.ValidationError) -> dict[str, Any]:
    kind, message = _SAYINGS.get(error.kind.name, ("value_error", "Input should be valid"))
    return {"loc": ["body", *error.instance_path], "msg": message, "type": kind}


class BflEmulator(Emulator):
    """Tasks finish when they are polled often enough, and call back then."""

    provider: ClassVar[str] = "bfl"
    base_path: ClassVar[str] = "/v1"

    def __init__(self) -> None:
        super().__init__()
        self.active_max = 24

    def settings(self) -> dict[str, Any]:
        """With a secret for callbacks."""
        return {**super().settings(), "webhook_secret": WEBHOOK_SECRET}

    def authorized(self, request: web.Request) -> bool:
        """`x-key`."""
        return request.headers.get("x-key") == SECRET

    def routes(self) -> list[web.RouteDef]:
        """The API, and the door of the region that has the tasks."""
        return [
            web.get("/v1/credits", self.credits),
            web.get("/v1/get_result", self.read),
            web.get(f"{_REGION}/v1/get_result", self.read),
            web.post("/v1/{model}", self.create),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/{model}`."""
        received = await self.receive(request)
        model, body = request.match_info["model"], received.body
        prompt = str(body.get("prompt", ""))
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return _detail(403, "Not authenticated")
        if model not in SCHEMAS:
            return _detail(404, "Not Found")
        refusal = self._refusal(behavior)
        if refusal is not None:
            return refusal
        if faults := [_fault(error) for error in _VALIDATORS[model].iter_errors(body)]:
            return _detail(422, faults)
        if sum(not job.extra["over"] for job in self.jobs.values()) >= self.active_max:
            return _detail(429, "Too many active tasks")
        job = self.new_job(
            str(UUID(int=self.number())),
            prompt,
            received,
            callback_url=body.get("webhook_url"),
            extra={
                "over": False,
                "readable": all(_is_picture(body[name]) for name in _BYTES if name in body),
            },
        )
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if behavior is Misbehavior.CALLBACK_EARLY:
            self.call_back(job, lambda forged: self._signed(job, forged, "Ready"))
        return json(200, self._accepted(job, model))

    def _accepted(self, job: EmulatedJob, model: str) -> dict[str, Any]:
        """A task that calls back is told without its address; models before FLUX.2 do not tell their cost."""
        told: dict[str, Any] = {"id": job.id}
        if job.callback_url is not None:
            told |= {"status": "Pending", "webhook_url": job.callback_url}
        else:
            told |= {"polling_url": f"{self.origin}{_REGION}/v1/get_result?id={job.id}"}
        if model.startswith("flux-2-"):
            told |= {"cost": 3.0, "input_mp": 0.0, "output_mp": 1.05}
        return told

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.NO_BALANCE:
                return _detail(402, "Insufficient credits")
            case Misbehavior.RATE_LIMITED:
                return _detail(429, "Rate limit exceeded")
            case Misbehavior.NO_CAPACITY:
                return _detail(503, "Service unavailable")
            case Misbehavior.BAD_INPUT:
                kind, message = _SAYINGS["enum"]
                return _detail(422, [{"loc": ["body", "output_format"], "msg": message, "type": kind}])
        return None

    async def read(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/get_result?id=`."""
        received = await self.receive(request)
        if not self.authorized(request):
            return _detail(403, "Not authenticated")
        job = self.jobs.get(received.query.get("id", ""))
        is_here = job is not None and (request.path.startswith(_REGION) or job.callback_url is not None)
        if job is None or not is_here or job.behavior is Misbehavior.LOST_JOB:
            lost = {"id": received.query.get("id"), "status": "Task not found", "result": None}
            return json(404, lost)
        if not self.is_done(job):
            return json(200, self.task(job, "Pending"))
        status = _end(job)
        if not job.extra["over"]:
            job.extra["over"] = True
            self.call_back(job, lambda forged: self._signed(job, forged, status))
        return json(422 if status == "Error" else 200, self.task(job, status))

    def task(self, job: EmulatedJob, status: str) -> dict[str, Any]:
        """The ResultResponse object."""
        result: dict[str, Any] | None = None
        details: dict[str, Any] | None = None
        match status:
            case "Ready":
                result = {
                    "sample": self.file_url(job),
                    "prompt": job.prompt,
                    "seed": 42,
                    "start_time": 1795400100.1,
                    "end_time": 1795400104.8,
                    "duration": 4.7,
                }
                if job.behavior is Misbehavior.NO_OUTPUT:
                    del result["sample"]
            case "Error":
                broken = "Invalid or corrupted image input"
                details = {"error": "Generation failed" if job.extra["readable"] else broken}
            case "Request Moderated" | "Content Moderated":
                details = {"Moderation Reasons": ["Safety Filter"]}
        return {
            "id": job.id,
            "status": status,
            "result": result,
            "progress": 0.4 if status == "Pending" else None,
            "details": details,
            "preview": None,
        }

    async def credits(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/credits`."""
        await self.receive(request)
        return (
            json(200, {"credits": 123.4}) if self.authorized(request) else _detail(403, "Not authenticated")
        )

    def _signed(self, job: EmulatedJob, forged: bool, status: str) -> tuple[dict[str, str], bytes]:
        body = msgspec.json.encode(self.task(job, status))
        key = b"somebody else" if forged else WEBHOOK_SECRET.encode()
        signature = hmac.new(key, body, hashlib.sha256).hexdigest()
        return {"content-type": "application/json", "x-bfl-signature": f"sha256={signature}"}, body


_BYTES = ("image_prompt", "image", "mask")
_ENDS = {
    Misbehavior.INTERNAL_ERROR: "Error",
    Misbehavior.MODERATED_INPUT: "Request Moderated",
    Misbehavior.MODERATED_OUTPUT: "Content Moderated",
}


def _end(job: EmulatedJob) -> str:
    if not job.extra["readable"]:
        return "Error"
    return "Ready" if job.behavior is None else _ENDS.get(job.behavior, "Ready")


def _is_picture(encoded: str) -> bool:
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as image:
            image.verify()
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError):
        return False
    return True
