"""Google's Gemini API, as far as it is used: `generateContent`, `predict`, `predictLongRunning`, operations, files.

Beside the checklist a prompt may hold `[google:<word>]`: `thoughts`, `blocked-other`, `no-image`, `region`,
`exhausted`, `gateway`, `deadline`, `high-load`, `bytes`, `elsewhere`.
"""

import asyncio
import base64
import re
from typing import Any, ClassVar

import jsonschema_rs
from aiohttp import web
from tests.emulators.kit import (
    SECRET,
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    Received,
    asked_for,
    json,
)

_OWN_WORDS = re.compile(r"\[google:([a-z-]+)\]")
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunningResponse"
_GEMINI_RATIOS = ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"]
_WIDER_RATIOS = ["1:4", "1:8", "4:1", "8:1"]


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """A schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_MIME = {"enum": ["image/png", "image/jpeg", "image/webp"]}
_BASE64 = {"type": "string", "pattern": "^[A-Za-z0-9+/]+=*$"}
_IMAGE = closed({"bytesBase64Encoded": _BASE64, "mimeType": _MIME}, "bytesBase64Encoded", "mimeType")
_INLINE = closed({"mimeType": _MIME, "data": _BASE64}, "mimeType", "data")
_SEED = {"type": "integer"}
_PEOPLE = {"enum": ["dont_allow", "allow_adult", "allow_all"]}
GENERATE = closed(
    {
        "contents": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": closed(
                {
                    "role": {"const": "user"},
                    "parts": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "oneOf": [
                                closed({"text": {"type": "string", "minLength": 1}}, "text"),
                                closed({"inlineData": _INLINE}, "inlineData"),
                            ]
                        },
                    },
                },
                "role",
                "parts",
            ),
        },
        "generationConfig": closed(
            {
                "responseModalities": {"type": "array", "items": {"enum": ["TEXT", "IMAGE"]}},
                "imageConfig": closed(
                    {
                        "aspectRatio": {"enum": _GEMINI_RATIOS + _WIDER_RATIOS},
                        "imageSize": {"enum": ["1K", "2K", "4K"]},
                    }
                ),
                "thinkingConfig": closed({"thinkingLevel": {"enum": ["minimal", "high"]}}),
                "seed": _SEED,
            },
            "responseModalities",
        ),
        "tools": {"type": "array", "items": closed({"google_search": closed({})}, "google_search")},
    },
    "contents",
    "generationConfig",
)


def _instances(**fields: Any) -> dict[str, Any]:
    prompt = {"type": "string", "minLength": 1}
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": closed({"prompt": prompt, **fields}, "prompt"),
    }


PREDICT = closed(
    {
        "instances": _instances(),
        "parameters": closed(
            {
                "sampleCount": {"type": "integer", "minimum": 1, "maximum": 4},
                "aspectRatio": {"enum": ["1:1", "3:4", "4:3", "9:16", "16:9"]},
                "imageSize": {"enum": ["1K", "2K"]},
                "personGeneration": _PEOPLE,
                "outputOptions": closed({"mimeType": {"enum": ["image/png", "image/jpeg"]}}, "mimeType"),
            }
        ),
    },
    "instances",
    "parameters",
)
OPERATE = closed(
    {
        "instances": _instances(image=_IMAGE, lastFrame=_IMAGE),
        "parameters": closed(
            {
                "aspectRatio": {"enum": ["16:9", "9:16"]},
                "durationSeconds": {"type": "integer", "minimum": 4, "maximum": 8},
                "resolution": {"enum": ["720p", "1080p"]},
                "negativePrompt": {"type": "string"},
                "personGeneration": _PEOPLE,
                "seed": _SEED,
            },
            "durationSeconds",
        ),
    },
    "instances",
    "parameters",
)
SCHEMAS = {"generateContent": GENERATE, "predict": PREDICT, "predictLongRunning": OPERATE}
_VALIDATORS = {verb: jsonschema_rs.validator_for(schema) for verb, schema in SCHEMAS.items()}


def complaint(verb: str, body: Any) -> str | None:
    """What the API has against a body."""
    for error in _VALIDATORS[verb].iter_errors(body):
        return f"Invalid JSON payload received at {list(error.instance_path)}: {error.message}"
    if verb == "predictLongRunning":
        [instance], parameters = body["instances"], body["parameters"]
        if "lastFrame" in instance and "image" not in instance:
            return "`lastFrame` needs `image`."
        if parameters.get("resolution") == "1080p" and parameters["durationSeconds"] != 8:
            return "`durationSeconds` must be 8 for 1080p."
    return None


def _error(code: int, status: str, message: str, *details: dict[str, Any]) -> web.Response:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    return json(code, {"error": {**error, "details": list(details)} if details else error})


def _detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def _bad_key() -> web.Response:
    reason = _detail("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com")
    message = "API key not valid. Please pass a valid API key."
    return _error(400, "INVALID_ARGUMENT", message, reason)


def _own_word(prompt: str) -> str | None:
    found = _OWN_WORDS.search(prompt)
    return found[1] if found else None


class GoogleEmulator(Emulator):
    """Pictures in the answer; clips from operations that are done when they are polled often enough."""

    provider: ClassVar[str] = "google"
    base_path: ClassVar[str] = "/v1beta"

    def __init__(self) -> None:
        super().__init__()
        self._closing = asyncio.Event()

    def app(self) -> web.Application:
        """Lets go of what is held when it closes."""
        app = super().app()

        async def close(_: web.Application) -> None:
            self._closing.set()

        app.on_shutdown.append(close)
        return app

    def authorized(self, request: web.Request) -> bool:
        """By a header of Google's own."""
        return request.headers.get("x-goog-api-key") == SECRET

    def routes(self) -> list[web.RouteDef]:
        """The API under `/v1beta`."""
        return [
            web.post("/v1beta/models/{model}:{verb}", self.call),
            web.get("/v1beta/models/{model}/operations/{id}", self.operation),
            web.get("/v1beta/files/{id}:download", self.download),
            web.get("/v1beta/models", self.models),
        ]

    async def call(self, request: web.Request) -> web.StreamResponse:
        """`POST /models/{model}:{verb}`."""
        received = await self.receive(request)
        model, verb = request.match_info["model"], request.match_info["verb"]
        if verb not in SCHEMAS:
            return _error(404, "NOT_FOUND", f"models/{model} is not supported for {verb}.")
        prompt = _prompt(received.body)
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return _bad_key()
        refusal = _refusal(behavior, verb) or _own_refusal(prompt)
        if refusal is not None:
            return refusal
        fault = complaint(verb, received.body)
        if fault is not None:
            return _error(400, "INVALID_ARGUMENT", fault)
        media = "video" if verb == "predictLongRunning" else "image"
        job = self.new_job(f"op{self.number()}", prompt, received, media=media, extra={"model": model})
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if media == "video":
            return json(200, {"name": _name(job)})
        if behavior is Misbehavior.SLOW:
            await self._closing.wait()
        return json(200, _predicted(self, job) if verb == "predict" else _generated(self, job))

    async def operation(self, request: web.Request) -> web.StreamResponse:
        """`GET /models/{model}/operations/{id}`."""
        await self.receive(request)
        if not self.authorized(request):
            return _bad_key()
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.LOST_JOB:
            return _error(404, "NOT_FOUND", "Operation not found.")
        body: dict[str, Any] = {"name": _name(job), "metadata": {"@type": "hidden"}}
        if self.is_done(job):
            body |= {"done": True, **self._outcome(job)}
        return json(200, body)

    def _outcome(self, job: EmulatedJob) -> dict[str, Any]:
        made: dict[str, Any]
        match job.behavior, _own_word(job.prompt):
            case Misbehavior.INTERNAL_ERROR, _:
                return {"error": {"code": 13, "message": "Internal error encountered."}}
            case _, "high-load":
                return {"error": {"code": 8, "message": "The service is currently experiencing high load."}}
            case Misbehavior.MODERATED_OUTPUT, _:
                reason = "The generated video was filtered because it violates our usage guidelines."
                made = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [reason]}
            case Misbehavior.NO_OUTPUT, _:
                made = {}
            case _, "bytes":
                video = {"encodedVideo": base64.b64encode(self.file(job)).decode(), "encoding": "video/mp4"}
                made = {"generatedSamples": [{"video": video}]}
            case _, "elsewhere":
                uri = self.file_url(job).replace("127.0.0.1", "localhost")  # another host than its own
                made = {"generatedSamples": [{"video": {"uri": uri}}]}
            case _:
                uri = f"{self.base_url}/files/{job.id}:download?alt=media"
                made = {"generatedSamples": [{"video": {"uri": uri}}]}
        return {"response": {"@type": _TYPE, "generateVideoResponse": made}}

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET /files/{id}:download`: files are given to the key's owner only."""
        await self.receive(request)
        if not self.authorized(request):
            return _error(403, "PERMISSION_DENIED", "You do not have permission to access the File.")
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.EXPIRED_OUTPUT:
            return _error(404, "NOT_FOUND", "Requested entity was not found.")
        self.files_fetched += 1
        return web.Response(body=self.file(job), content_type="video/mp4")

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /models`."""
        await self.receive(request)
        if not self.authorized(request):
            return _bad_key()
        return json(200, {"models": [{"name": "models/gemini-2.5-flash-image"}], "nextPageToken": "x"})

    def submits(self) -> list[Received]:
        """Calls of models."""
        return [request for request in super().submits() if "/models/" in request.path]


def _prompt(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    if "contents" in body:
        return str(body["contents"][0]["parts"][0].get("text", ""))
    return str(body.get("instances", [{}])[0].get("prompt", ""))


def _name(job: EmulatedJob) -> str:
    return f"models/{job.extra['model']}/operations/{job.id}"


def _refusal(behavior: Misbehavior | None, verb: str) -> web.StreamResponse | None:
    match behavior:
        case Misbehavior.REQUEST_DROPPED:
            raise DroppedError
        case Misbehavior.GARBAGE:
            return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
        case Misbehavior.MODERATED_INPUT if verb == "generateContent":
            return json(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}})
        case Misbehavior.MODERATED_INPUT:
            message = "The prompt contains sensitive words that violate Google's Responsible AI practices."
            return _error(400, "INVALID_ARGUMENT", message)
        case Misbehavior.BAD_INPUT:
            return _error(400, "INVALID_ARGUMENT", "Aspect ratio 7:5 is not supported for this model.")
        case Misbehavior.INTERNAL_ERROR if verb != "predictLongRunning":
            return _error(500, "INTERNAL", "An internal error has occurred. Please retry.")
        case Misbehavior.RATE_LIMITED:
            return _limited()
        case Misbehavior.NO_CAPACITY:
            return _error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
        case Misbehavior.NO_BALANCE:
            message = "Billing is not enabled for the project. Enable billing to use this model."
            return _error(400, "FAILED_PRECONDITION", message)
    return None


def _limited() -> web.Response:
    message = "You exceeded your current quota, please check your plan and billing details."
    quota = _detail("QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}])
    return _error(429, "RESOURCE_EXHAUSTED", message, quota, _detail("RetryInfo", retryDelay="13s"))


def _own_refusal(prompt: str) -> web.StreamResponse | None:
    match _own_word(prompt):
        case "region":
            message = "User location is not supported for the API use."
            return _error(400, "FAILED_PRECONDITION", message)
        case "exhausted":
            return _error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")
        case "gateway":
            return web.Response(status=502, text="<html>bad gateway</html>", content_type="text/html")
        case "deadline":
            return _error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")
    return None


def _encoded(emulator: GoogleEmulator, job: EmulatedJob) -> str:
    return base64.b64encode(emulator.file(job)).decode()


def _generated(emulator: GoogleEmulator, job: EmulatedJob) -> dict[str, Any]:
    """GenerateContentResponse."""
    shown = {"inlineData": {"mimeType": "image/png", "data": _encoded(emulator, job)}}
    content: dict[str, Any] = {"role": "model", "parts": [{"text": "Here it is."}, shown]}
    end = "STOP"
    match job.behavior, _own_word(job.prompt):
        case Misbehavior.MODERATED_OUTPUT, _:
            content, end = {}, "IMAGE_SAFETY"
        case Misbehavior.NO_OUTPUT, _:
            content["parts"] = [{"text": "I would rather talk about it."}]
        case _, "no-image":
            content, end = {}, "NO_IMAGE"
        case _, "blocked-other":
            return {"promptFeedback": {"blockReason": "OTHER"}}
        case _, "thoughts":
            draft = {"mimeType": "image/png", "data": base64.b64encode(b"a draft").decode()}
            content["parts"] = [
                {"text": "Hmm.", "thought": True},
                {"inlineData": draft, "thought": True},
                shown,
            ]
    return {
        "candidates": [{"content": content, "finishReason": end, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 8,
            "candidatesTokenCount": 1298,
            "totalTokenCount": 1306,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
        },
        "modelVersion": job.extra["model"],
        "responseId": job.id,
    }


def _predicted(emulator: GoogleEmulator, job: EmulatedJob) -> dict[str, Any]:
    """Imagen's answer; what is filtered is missing or leaves a reason."""
    match job.behavior, _own_word(job.prompt):
        case Misbehavior.MODERATED_OUTPUT, _:
            return {"predictions": [{"raiFilteredReason": "Unable to show the image."}]}
        case _, "blocked-other":
            return {}
    return {"predictions": [{"bytesBase64Encoded": _encoded(emulator, job), "mimeType": "image/png"}]}
