"""Runway's developer API, as far as it is used: tasks that are created, read and deleted, and the organisation.

Beside the checklist a prompt may hold `[runway:<word>]`: `throttled`, `on-behalf-of`, `asset`, `bad-asset`, `gateway`,
`shed`, `cancelled`.
"""

import re
import uuid
from typing import Any, ClassVar

import jsonschema_rs
from aiohttp import web
from tests.emulators.kit import DroppedError, EmulatedJob, Emulator, Misbehavior, asked_for, json

VERSION = "2024-11-06"
_DOCS = "https://docs.dev.runwayml.com/api"
_OWN_WORDS = re.compile(r"\[runway:([a-z-]+)\]")

_URI: dict[str, Any] = {"type": "string", "pattern": "^https://", "maxLength": 2048}
_PROMPT: dict[str, Any] = {"type": "string", "minLength": 1}
_IMAGE_RATIOS = [
    "1024:1024", "1080:1080", "1168:880", "1360:768", "1440:1080", "1080:1440", "1808:768", "1920:1080",
    "1080:1920", "2112:912", "1280:720", "720:1280", "720:720", "960:720", "720:960", "1680:720",
]  # fmt: skip
_CLIP_RATIOS = ["1280:720", "720:1280", "1104:832", "832:1104", "960:960", "1584:672"]


def _body(model: str, required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "model": {"const": model},
            "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
            "contentModeration": {
                "type": "object",
                "properties": {"publicFigureThreshold": {"enum": ["auto", "low"]}},
                "additionalProperties": False,
            },
            **properties,
        },
        "required": ["model", *required.split()],
        "additionalProperties": False,
    }


def _list(least: int, most: int, **properties: Any) -> dict[str, Any]:
    item = {"type": "object", "properties": properties, "required": ["uri"], "additionalProperties": False}
    return {"type": "array", "minItems": least, "maxItems": most, "items": item}


def _file(*kinds: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"enum": list(kinds)}, "uri": _URI},
        "required": ["type", "uri"],
        "additionalProperties": False,
    }


_SECONDS = {"type": "integer", "minimum": 2, "maximum": 10}

#: By path and model: the bodies that the API takes.
SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    ("text_to_image", "gen4_image"): _body(
        "gen4_image",
        "promptText ratio",
        promptText=_PROMPT,
        ratio={"enum": _IMAGE_RATIOS},
        referenceImages=_list(1, 3, uri=_URI, tag={"type": "string"}),
    ),
    ("text_to_image", "gen4_image_turbo"): _body(
        "gen4_image_turbo",
        "promptText ratio referenceImages",
        promptText=_PROMPT,
        ratio={"enum": _IMAGE_RATIOS},
        referenceImages=_list(1, 3, uri=_URI, tag={"type": "string"}),
    ),
    ("text_to_video", "gen4.5"): _body(
        "gen4.5",
        "promptText ratio duration",
        promptText=_PROMPT,
        ratio={"enum": ["1280:720", "720:1280"]},
        duration=_SECONDS,
    ),
    ("image_to_video", "gen4.5"): _body(
        "gen4.5",
        "promptText promptImage ratio duration",
        promptText=_PROMPT,
        promptImage=_URI,
        ratio={"enum": _CLIP_RATIOS},
        duration=_SECONDS,
    ),
    ("image_to_video", "gen4_turbo"): _body(
        "gen4_turbo",
        "promptImage ratio",
        promptText=_PROMPT,
        promptImage=_URI,
        ratio={"enum": _CLIP_RATIOS},
        duration=_SECONDS,
    ),
    ("video_to_video", "gen4_aleph"): _body(
        "gen4_aleph",
        "promptText videoUri",
        promptText=_PROMPT,
        videoUri=_URI,
        ratio={"enum": _CLIP_RATIOS},
        references=_list(1, 1, type={"const": "image"}, uri=_URI),
    ),
    ("video_to_video", "aleph2"): _body(
        "aleph2",
        "videoUri",
        promptText=_PROMPT,
        videoUri=_URI,
        targetAspectRatio={"enum": ["16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "21:9"]},
        keyframes=_list(1, 5, uri=_URI, at={"type": "number", "minimum": 0, "maximum": 1}),
    ),
    ("character_performance", "act_two"): _body(
        "act_two",
        "character reference",
        character=_file("image", "video"),
        reference=_file("video"),
        ratio={"enum": _CLIP_RATIOS},
        bodyControl={"type": "boolean"},
        expressionIntensity={"type": "integer", "minimum": 1, "maximum": 5},
    ),
}
_VALIDATORS = {key: jsonschema_rs.validator_for(schema) for key, schema in SCHEMAS.items()}
_CREDITS = 5

_FAILURES = {
    Misbehavior.MODERATED_INPUT: ("SAFETY.INPUT.TEXT", "Content moderation refused the prompt."),
    Misbehavior.MODERATED_OUTPUT: ("SAFETY.OUTPUT.IMAGE", "Content moderation withheld the result."),
    Misbehavior.INTERNAL_ERROR: ("INTERNAL.BAD_OUTPUT.CODE01", "The output was not usable."),
}


def complaints(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the API has against a body."""
    validator = _VALIDATORS.get((path, str(body.get("model"))))
    if validator is None:
        return [{"code": "invalid_union", "message": "No such model on this endpoint.", "path": ["model"]}]
    return [
        {"code": "custom", "message": error.message, "path": list(error.instance_path)}
        for error in validator.iter_errors(body)
    ]


def _error(status: int, message: str, **beside: Any) -> web.Response:
    return json(status, {"error": message, **beside, "docUrl": _DOCS})


class RunwayEmulator(Emulator):
    """Tasks finish when they are read. Each reading signs the addresses of the outputs anew."""

    provider: ClassVar[str] = "runway"
    base_path: ClassVar[str] = "/v1"

    def __init__(self) -> None:
        super().__init__()
        self.polls_until_done = 0  # readings are at least five seconds apart

    def routes(self) -> list[web.RouteDef]:
        """The API under `/v1`."""
        paths = "|".join(sorted({path for path, _ in SCHEMAS}))
        return [
            web.post(f"/v1/{{path:{paths}}}", self.create),
            web.get("/v1/tasks/{id}", self.read),
            web.delete("/v1/tasks/{id}", self.delete),
            web.get("/v1/organization", self.organization),
        ]

    def _unwelcome(self, request: web.Request) -> web.StreamResponse | None:
        if not self.authorized(request):
            return _error(401, "The API key you provided is not valid.")
        if request.headers.get("x-runway-version") != VERSION:
            return _error(400, "X-Runway-Version request header is missing or unknown")
        return None

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /{text_to_image,...}`."""
        received = await self.receive(request)
        prompt = str(received.body.get("promptText", ""))
        behavior = asked_for(prompt)
        if behavior is Misbehavior.BAD_KEY:
            return _error(401, "The API key you provided is not valid.")
        own = _OWN_WORDS.search(prompt)
        refusal = (
            self._unwelcome(request)
            or self._refusal(behavior)
            or self._own_refusal(own[1] if own else "", request)
        )
        if refusal is not None:
            return refusal
        issues = complaints(request.match_info["path"], received.body)
        if issues:
            return _error(400, "Validation of body failed", issues=issues)
        job = self.new_job(
            str(uuid.UUID(int=self.number())),
            prompt,
            received,
            media="image" if request.match_info["path"] == "text_to_image" else "video",
            extra={"own": own[1] if own else ""},
        )
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        return json(200, {"id": job.id, "estimatedCost": {"credits": _CREDITS}})

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.NO_BALANCE:
                return _error(400, "You do not have enough credits to run this task.")
            case Misbehavior.RATE_LIMITED:
                return _error(429, "Your daily task limit has been reached.")
            case Misbehavior.NO_CAPACITY:
                return _error(503, "Service temporarily unavailable")
            case Misbehavior.BAD_INPUT:
                issue = {"code": "invalid_value", "message": "Invalid ratio.", "path": ["ratio"]}
                return _error(400, "Validation of body failed", issues=[issue])
        return None

    def _own_refusal(self, word: str, request: web.Request) -> web.StreamResponse | None:
        match word:
            case "on-behalf-of" if "x-runway-on-behalf-of" not in request.headers:
                header = "X-Runway-On-Behalf-Of"
                return _error(400, f"{header} request header was not specified for task creation")
            case "asset":
                issue = {
                    "code": "custom",
                    "message": 'Failed to fetch asset. Received HTTP response code "404".',
                    "path": ["promptImage"],
                }
                return _error(400, "Validation of body failed", issues=[issue])
            case "gateway":
                return web.Response(
                    status=504, text="<html>Gateway Time-out</html>", content_type="text/html"
                )
            case "shed":
                return web.Response(status=502, text="Bad Gateway")
        return None

    async def read(self, request: web.Request) -> web.StreamResponse:
        """`GET /tasks/{id}`."""
        await self.receive(request)
        if refusal := self._unwelcome(request):
            return refusal
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.canceled or job.behavior is Misbehavior.LOST_JOB:
            return json(404, {"error": "Could not find Task"})
        return json(200, self.task(job))

    def task(self, job: EmulatedJob) -> dict[str, Any]:
        """The task object, discriminated by its status."""
        head = {"id": job.id, "createdAt": "2026-11-23T02:15:00.448Z"}
        own = job.extra["own"]
        if not self.is_done(job):
            expected = {"estimatedCost": {"credits": _CREDITS}}
            if own == "throttled" and job.polls == 1:
                return {**head, "status": "THROTTLED", **expected}
            return {**head, "status": "RUNNING", "progress": 0.42, **expected}
        cost = {"cost": {"credits": _CREDITS}}
        if own == "cancelled":
            return {**head, "status": "CANCELLED", **cost}
        if own == "bad-asset":
            return {
                **head,
                "status": "FAILED",
                "failureCode": "ASSET.INVALID",
                "failure": "Bad asset.",
                **cost,
            }
        if job.behavior in _FAILURES:
            code, words = _FAILURES[job.behavior]
            return {**head, "status": "FAILED", "failureCode": code, "failure": words, **cost}
        signed = f"{self.file_url(job)}?_jwt={job.polls}"
        output = [] if job.behavior is Misbehavior.NO_OUTPUT else [signed]
        return {**head, "status": "SUCCEEDED", "output": output, **cost}

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /tasks/{id}`: the task is forgotten, whatever became of it."""
        await self.receive(request)
        if refusal := self._unwelcome(request):
            return refusal
        if job := self.jobs.get(request.match_info["id"]):
            job.canceled = True
        return web.Response(status=204)

    async def organization(self, request: web.Request) -> web.StreamResponse:
        """`GET /organization`."""
        await self.receive(request)
        return self._unwelcome(request) or json(
            200, {"creditBalance": 5000, "tier": {"maxMonthlyCreditSpend": 10000, "models": {}}, "usage": {}}
        )
