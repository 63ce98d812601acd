"""BytePlus ModelArk: pictures in the answer, video tasks that are created, read, listed, and taken out of the queue."""

import re
from typing import Any, ClassVar

import jsonschema_rs
import msgspec
from aiohttp import web
from tests.emulators.kit import (
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    Received,
    asked_for,
    json,
    picture,
)

_TASKS = "/api/v3/contents/generations/tasks"
_FINAL = ("succeeded", "failed", "cancelled", "expired")
#: The index of a clip's last frame among its task's files.
_FRAME = 1

_URL: dict[str, Any] = {"type": "string", "pattern": "^(https?://|data:)"}
_FLAG: dict[str, Any] = {"type": "boolean"}


def _closed(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _media(kind: str, *roles: str) -> dict[str, Any]:
    return _closed(
        ["type", kind], type={"const": kind}, role={"enum": list(roles)}, **{kind: _closed(["url"], url=_URL)}
    )


IMAGES: dict[str, Any] = _closed(
    ["model", "prompt"],
    model={"enum": ["seedream-4-0-250828", "seedream-4-5-251128", "seedream-5-0-lite-260128"]},
    prompt={"type": "string", "minLength": 1},
    image={"anyOf": [_URL, {"type": "array", "items": _URL, "minItems": 1, "maxItems": 14}]},
    size={"type": "string", "pattern": r"^([1-4]K|\d+x\d+)$"},
    response_format={"enum": ["url", "b64_json"]},
    watermark=_FLAG,
    sequential_image_generation={"enum": ["auto", "disabled"]},
    sequential_image_generation_options=_closed(
        ["max_images"], max_images={"type": "integer", "minimum": 1, "maximum": 15}
    ),
    stream=_FLAG,
    optimize_prompt_options=_closed([], mode={"enum": ["standard", "fast"]}),
    output_format={"enum": ["jpeg", "png"]},
)
VIDEOS: dict[str, Any] = _closed(
    ["model", "content"],
    model={
        "enum": [
            "seedance-1-0-lite-t2v-250428",
            "seedance-1-0-lite-i2v-250428",
            "seedance-1-0-pro-250528",
            "seedance-1-0-pro-fast-251015",
            "seedance-1-5-pro-251215",
            "dreamina-seedance-2-0-260128",
            "dreamina-seedance-2-0-fast-260128",
        ]
    },
    content={
        "type": "array",
        "minItems": 1,
        "items": {
            "anyOf": [
                _closed(["type", "text"], type={"const": "text"}, text={"type": "string", "minLength": 1}),
                _media("image_url", "first_frame", "last_frame", "reference_image"),
                _media("video_url", "reference_video"),
                _media("audio_url", "reference_audio"),
            ]
        },
    },
    resolution={"enum": ["480p", "720p", "1080p", "4k"]},
    ratio={"enum": ["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive"]},
    duration={"type": "integer", "minimum": 2, "maximum": 15},
    frames={"type": "integer", "minimum": 29, "maximum": 289},
    seed={"type": "integer", "minimum": -1, "maximum": 4294967295},
    camera_fixed=_FLAG,
    watermark=_FLAG,
    generate_audio=_FLAG,
    return_last_frame=_FLAG,
    draft=_FLAG,
    service_tier={"enum": ["default", "flex"]},
    execution_expires_after={"type": "integer", "minimum": 3600, "maximum": 259200},
    callback_url={"type": "string", "pattern": "^https?://"},
)
_IMAGES, _VIDEOS = (jsonschema_rs.Draft202012Validator(schema) for schema in (IMAGES, VIDEOS))

#: Per model: the least and most pixels of a picture, and the named sizes.
_PICTURES = {
    "seedream-4-0-250828": (1280 * 720, 4096 * 4096, ("1K", "2K", "4K")),
    "seedream-4-5-251128": (2560 * 1440, 4096 * 4096, ("2K", "4K")),
    "seedream-5-0-lite-260128": (2560 * 1440, 10_404_496, ("2K", "3K")),
}


def _error(status: int, code: str, message: str) -> web.Response:
    kind = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 429: "TooManyRequests"}
    error = {"code": code, "message": f"{message} Request id: 021", "param": "", "type": kind.get(status, "")}
    return json(status, {"error": error}, {"x-request-id": "021"})


class BytePlusEmulator(Emulator):
    """Tasks are queued until they are asked for, finish when they were asked for often enough, and call back then."""

    provider: ClassVar[str] = "byteplus"
    base_path: ClassVar[str] = "/api/v3"

    def routes(self) -> list[web.RouteDef]:
        """The API under `/api/v3`."""
        return [
            web.post("/api/v3/images/generations", self.draw),
            web.post(_TASKS, self.create),
            web.get(_TASKS, self.list),
            web.get(f"{_TASKS}/{{id}}", self.read),
            web.delete(f"{_TASKS}/{{id}}", self.delete),
        ]

    # ------------------------------------------------------------------------------- pictures

    async def draw(self, request: web.Request) -> web.StreamResponse:
        """`POST /images/generations`."""
        received = await self.receive(request)
        prompt = str(received.body.get("prompt", ""))
        behavior = asked_for(prompt)
        refusal = self._refusal(request, behavior) or picture_fault(received.body)
        if refusal is not None:
            return refusal
        if behavior is Misbehavior.INTERNAL_ERROR:
            return _error(
                500, "InternalServiceError", "The service encountered an unexpected internal error."
            )
        job = self.new_job(f"img-{self.number()}", prompt, received, count=_count(received.body, prompt))
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if behavior is Misbehavior.SLOW:
            await self.closing.wait()
        return json(200, self.pictures(job), {"x-request-id": f"021-{job.id}"})

    def pictures(self, job: EmulatedJob) -> dict[str, Any]:
        """The answer with the pictures."""
        blocked = {
            "code": "OutputImageSensitiveContentDetected",
            "message": "The request failed because the output image may contain sensitive information.",
        }
        data: list[dict[str, Any]] = [
            {"url": self.file_url(job, index), "size": "2048x2048"} for index in range(job.count)
        ]
        if job.behavior is Misbehavior.PARTIAL_BATCH:
            data[-1] = {"error": {"code": "InternalServiceError", "message": "one image failed"}}
        if job.behavior is Misbehavior.MODERATED_OUTPUT:
            data = [{"error": blocked}] * job.count
        if job.behavior is Misbehavior.NO_OUTPUT:
            data = []
        made = sum("url" in item for item in data)
        tokens = 16384 * made
        return {
            "model": job.request.body["model"],
            "created": 1795400100,
            "data": data,
            "usage": {"generated_images": made, "output_tokens": tokens, "total_tokens": tokens},
        }

    # ------------------------------------------------------------------------------- tasks

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /contents/generations/tasks`."""
        received = await self.receive(request)
        prompt = _text(received)
        behavior = asked_for(prompt)
        refusal = self._refusal(request, behavior) or task_fault(received.body)
        if refusal is not None:
            return refusal
        number = self.number()
        job = self.new_job(
            f"cgt-20261123021500-{number:05d}",
            prompt,
            received,
            media="video",
            callback_url=received.body.get("callback_url"),
        )
        job.extra["seed"] = received.body["seed"] if received.body.get("seed", -1) >= 0 else 58944 + number
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if behavior is Misbehavior.CALLBACK_EARLY:
            self.call_back(job, lambda _: self._callback(job, "succeeded"))
        return json(200, {"id": job.id})

    async def read(self, request: web.Request) -> web.StreamResponse:
        """`GET /contents/generations/tasks/{id}`."""
        await self.receive(request)
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.LOST_JOB:
            return _error(404, "InvalidTask.NotFound", "The task is not found.")
        if not job.canceled and job.extra.get("status") not in _FINAL:
            job.extra["status"] = _end(job) if self.is_done(job) else "running"
            if job.extra["status"] in _FINAL:
                status = job.extra["status"]
                self.call_back(job, lambda forged: self._callback(job, "failed" if forged else status))
        return json(200, self.task(job))

    def task(self, job: EmulatedJob, status: str | None = None) -> dict[str, Any]:
        """The task object."""
        status = status or ("cancelled" if job.canceled else job.extra.get("status", "queued"))
        body = job.request.body
        told: dict[str, Any] = {
            "id": job.id,
            "model": body["model"],
            "status": status,
            "created_at": 1795400100,
            "updated_at": 1795400190,
            "seed": job.extra["seed"],
            "resolution": body.get("resolution"),
            "ratio": body.get("ratio"),
            "duration": body.get("duration"),
            "framespersecond": 24,
            "service_tier": body.get("service_tier", "default"),
            "execution_expires_after": body.get("execution_expires_after", 172800),
        }
        if status == "failed":
            told["error"] = _failure(job)
        if status == "succeeded":
            told["content"] = (
                {} if job.behavior is Misbehavior.NO_OUTPUT else {"video_url": self.file_url(job)}
            )
            if body.get("return_last_frame"):
                told["content"]["last_frame_url"] = self.file_url(job, _FRAME)
            told["usage"] = {"completion_tokens": 108900, "total_tokens": 108900}
        return told

    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /contents/generations/tasks?page_num&page_size`, the newest first."""
        received = await self.receive(request)
        if not self.authorized(request):
            return _error(401, "AuthenticationError", "The API key in the request is missing or invalid.")
        assert set(received.query) <= {"page_num", "page_size"}
        size = int(received.query.get("page_size", "10"))
        jobs = [job for job in self.jobs.values() if job.media == "video"][::-1]
        return json(200, {"total": len(jobs), "items": [self.task(job) for job in jobs[:size]]})

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /contents/generations/tasks/{id}`: cancels in the queue, forgets after the end."""
        await self.receive(request)
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _error(404, "InvalidTask.NotFound", "The task is not found.")
        status = job.extra.get("status", "queued")
        if job.canceled or status == "running":
            return _error(
                409, "OperationDenied.InvalidState", f"A task that is {status} cannot be cancelled."
            )
        if status == "queued":
            job.canceled = True
        else:
            job.prompt = f"[emulate:{Misbehavior.LOST_JOB}]"
        return json(200, {})

    # ------------------------------------------------------------------------------- small parts

    def _refusal(self, request: web.Request, behavior: Misbehavior | None) -> web.StreamResponse | None:
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return _error(401, "AuthenticationError", "The API key in the request is missing or invalid.")
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.NO_BALANCE:
                return _error(403, "AccountOverdueError", "The account has an overdue balance.")
            case Misbehavior.RATE_LIMITED:
                return _error(429, "ModelAccountIpmRateLimitExceeded", "The images per minute are used up.")
            case Misbehavior.NO_CAPACITY:
                return _error(429, "ServerOverloaded", "The servers are overloaded.")
            case Misbehavior.MODERATED_INPUT:
                message = "The request failed because the input text may contain sensitive information."
                return _error(400, "InputTextSensitiveContentDetected", message)
            case Misbehavior.BAD_INPUT:
                return _error(400, "InvalidParameter", "The parameter `watermark` is not valid.")
        return None

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        answer = await super()._serve_file(request)
        job = self.jobs.get(request.match_info["id"])
        if job is not None and job.media == "video" and request.match_info["index"] == str(_FRAME):
            return web.Response(body=picture(), content_type="image/png")
        return answer

    def _callback(self, job: EmulatedJob, status: str) -> tuple[dict[str, str], bytes]:
        """Nothing is signed: a forged one only tells something else."""
        return {"content-type": "application/json"}, msgspec.json.encode(self.task(job, status))


def _text(received: Received) -> str:
    parts = received.body.get("content", [])
    return next((str(part["text"]) for part in parts if part.get("type") == "text"), "")


def _end(job: EmulatedJob) -> str:
    failing = (Misbehavior.INTERNAL_ERROR, Misbehavior.MODERATED_OUTPUT)
    return "failed" if job.behavior in failing else "succeeded"


def _failure(job: EmulatedJob) -> dict[str, str]:
    if job.behavior is Misbehavior.MODERATED_OUTPUT:
        return {
            "code": "OutputVideoSensitiveContentDetected",
            "message": "The request failed because the output video may contain sensitive information.",
        }
    return {
        "code": "InternalServiceError",
        "message": "The service encountered an unexpected internal error.",
    }


def _count(body: dict[str, Any], prompt: str) -> int:
    """A set is as large as the prompt says, within what is allowed; without a word of it there is one picture."""
    if body.get("sequential_image_generation") != "auto":
        return 1
    most = int(body.get("sequential_image_generation_options", {}).get("max_images", 15))
    named = re.search(r"(\d+) images", prompt)
    return min(int(named[1]), most) if named else 1


def picture_fault(body: dict[str, Any]) -> web.StreamResponse | None:
    for error in _IMAGES.iter_errors(body):
        return _error(400, "InvalidParameter", f"{error.kind.name} at {error.instance_path}.")
    least, most, names = _PICTURES[body["model"]]
    size = str(body.get("size", "2K"))
    if "x" in size:
        width, height = map(int, size.split("x"))
        if not least <= width * height <= most or not 1 / 16 <= width / height <= 16:
            return _error(400, "InvalidParameter.size", "The size must be between the bounds of the model.")
    elif size not in names:
        return _error(400, "InvalidParameter.size", "The model has no such size.")
    if "output_format" in body and not body["model"].startswith("seedream-5"):
        return _error(400, "InvalidParameter.output_format", "The model takes no output_format.")
    sources = body.get("image", [])
    count = body.get("sequential_image_generation_options", {}).get("max_images", 1)
    if (1 if isinstance(sources, str) else len(sources)) + count > 15:
        return _error(400, "InvalidParameter", "The number of images exceeds 15.")
    return None


#: What each family of video models does not take, and the seconds it makes.
_NOT = {
    "seedance-1-0-lite": {"draft", "generate_audio"},
    "seedance-1-0-pro": {"draft", "generate_audio"},
    "seedance-1-5-pro": {"frames"},
    "dreamina-seedance-2-0": {"draft", "frames", "seed", "camera_fixed", "service_tier"},
}
_SECONDS = {
    "seedance-1-0-lite": (2, 12),
    "seedance-1-0-pro": (2, 12),
    "seedance-1-5-pro": (4, 12),
    "dreamina-seedance-2-0": (4, 15),
}


def task_fault(body: dict[str, Any]) -> web.StreamResponse | None:
    for error in _VIDEOS.iter_errors(body):
        return _error(400, "InvalidParameter", f"{error.kind.name} at {error.instance_path}.")
    family = next(name for name in _NOT if body["model"].startswith(name))
    for name in _NOT[family]:
        if name in body:
            return _error(400, "InvalidParameter", f"The parameter `{name}` is not supported by the model.")
    low, high = _SECONDS[family]
    if "duration" in body and ("frames" in body or not low <= body["duration"] <= high):
        return _error(400, "InvalidParameter.duration", f"The duration must be between {low} and {high}.")
    if body.get("resolution") == "1080p" and body["model"].startswith("dreamina-seedance-2-0-fast"):
        return _error(400, "InvalidParameter.resolution", "The model has no such resolution.")
    if fault := _role_fault(body["model"], [part.get("role", "") for part in body["content"]]):
        return _error(400, "InvalidParameter.content", fault)
    return None


def _role_fault(model: str, roles: list[str]) -> str | None:
    given = set(roles) - {""}
    frames = given & {"first_frame", "last_frame"}
    references = given - frames
    if frames and references:
        return "First and last frames cannot be mixed with reference media."
    if "last_frame" in given and "first_frame" not in given:
        return "A last frame needs a first frame."
    if given == {"reference_audio"}:
        return "Audio cannot be the only reference."
    if ("-t2v-" in model and given) or ("-i2v-" in model and not given):
        return "The model does not take such content."
    if "pro-fast" in model and "last_frame" in given:
        return "The model takes a first frame only."
    if references and not model.startswith("dreamina-seedance-2"):
        return "The model takes no reference media."
    return None
