"""OpenAI's Images API, as far as it is used: generations, edits by JSON, the list of models.

Beside the checklist a prompt may hold `[openai:<word>]`: `hard-limit`, `unverified`, `quota`, `bad-url`, `bad-file`,
`gateway`.
"""

import base64
import re
from typing import Any, ClassVar

import jsonschema_rs
from aiohttp import web
from tests.emulators.kit import DroppedError, EmulatedJob, Emulator, Misbehavior, Received, asked_for, json

MODELS = ("gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2")
RETIRED = ("dall-e-2", "dall-e-3", "gpt-image-1")
_SIZES = ("auto", "1024x1024", "1536x1024", "1024x1536")
_OWN_WORDS = re.compile(r"\[openai:([a-z-]+)\]")

_COMMON: dict[str, Any] = {
    "model": {"type": "string"},
    "prompt": {"type": "string", "minLength": 1, "maxLength": 32_000},
    "n": {"type": "integer", "minimum": 1, "maximum": 10},
    "size": {"type": "string", "pattern": r"^(auto|[1-9][0-9]{2,3}x[1-9][0-9]{2,3})$"},
    "quality": {"enum": ["auto", "low", "medium", "high"]},
    "background": {"enum": ["auto", "opaque", "transparent"]},
    "output_format": {"enum": ["png", "jpeg", "webp"]},
    "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
    "moderation": {"enum": ["auto", "low"]},
    "safety_identifier": {"type": "string"},
}
_REFERENCE: dict[str, Any] = {
    "type": "object",
    "properties": {"image_url": {"type": "string", "pattern": "^(https?://|data:)"}},
    "required": ["image_url"],
    "additionalProperties": False,
}
GENERATION: dict[str, Any] = {
    "type": "object",
    "properties": _COMMON,
    "required": ["model", "prompt"],
    "additionalProperties": False,
}
EDIT: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_COMMON,
        "images": {"type": "array", "minItems": 1, "maxItems": 16, "items": _REFERENCE},
        "mask": _REFERENCE,
        "input_fidelity": {"enum": ["low", "high"]},
    },
    "required": ["model", "prompt", "images"],
    "additionalProperties": False,
}
_VALIDATORS = {
    "generations": jsonschema_rs.validator_for(GENERATION),
    "edits": jsonschema_rs.validator_for(EDIT),
}

_REJECTED = (
    "Your request was rejected by the safety system. If you believe this is an error, contact us at "
    "help.openai.com and include the request ID 0f7c1f8e-2b0e-4d5e-9a53-6d1f0c3b7a11. safety_violations=[sexual]."
)


def _error(
    status: int, message: str, *, type: str = "invalid_request_error", code: str | None = None, **beside: Any
) -> web.Response:
    error = {"message": message, "type": type, "param": None, "code": code, **beside}
    return json(status, {"error": error}, {"x-request-id": "req_refused"})


def complaint(endpoint: str, body: dict[str, Any]) -> tuple[str, str] | None:
    """What the API has against a body: code and message."""
    schema = GENERATION if endpoint == "generations" else EDIT
    for name in body:
        if name not in schema["properties"]:
            return "unknown_parameter", f"Unknown parameter: '{name}'."
    for name in schema["required"]:
        if name not in body:
            return "missing_required_parameter", f"Missing required parameter: '{name}'."
    for error in _VALIDATORS[endpoint].iter_errors(body):
        return "invalid_value", f"Invalid value at {list(error.instance_path)}: {error.message}"
    if not _size_is_good(body.get("size", "auto"), body["model"]):
        return "invalid_value", f"Invalid value: '{body['size']}'."
    if body.get("background") == "transparent":
        if body["model"] == "gpt-image-2":
            return "invalid_value", "Transparent background is not supported for this model."
        if body.get("output_format") == "jpeg":
            return "invalid_value", "Transparent background is not supported for JPEG output format."
    if body.get("output_format", "png") == "png" and body.get("output_compression", 100) != 100:
        return "invalid_value", "Compression less than 100 is not supported for PNG output format."
    return None


def _size_is_good(size: str, model: str) -> bool:
    if model != "gpt-image-2" or size == "auto":
        return size in _SIZES
    width, height = map(int, size.split("x"))
    shape = max(width, height) / min(width, height)
    fits = max(width, height) <= 3840 and min(width, height) <= 2160
    return width % 16 == height % 16 == 0 and shape <= 3 and fits


class OpenAIEmulator(Emulator):
    """Answers with the pictures themselves."""

    provider: ClassVar[str] = "openai"
    base_path: ClassVar[str] = "/v1"

    def routes(self) -> list[web.RouteDef]:
        """The API under `/v1`."""
        return [
            web.post("/v1/images/{endpoint:generations|edits}", self.draw),
            web.get("/v1/models", self.models),
        ]

    async def draw(self, request: web.Request) -> web.StreamResponse:
        """`POST /images/generations` and `POST /images/edits`."""
        received = await self.receive(request)
        body = received.body if isinstance(received.body, dict) else {}
        prompt = str(body.get("prompt", ""))
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            return _error(401, f"Incorrect API key provided: {key}.", code="invalid_api_key")
        refusal = self._refusal(behavior) or self._own_refusal(prompt)
        if refusal is not None:
            return refusal
        if body.get("model") not in MODELS:
            message = f"The model '{body.get('model')}' does not exist or you do not have access to it."
            return _error(404, message, code="model_not_found")
        fault = complaint(request.match_info["endpoint"], body)
        if fault is not None:
            return _error(400, fault[1], code=fault[0])
        return await self._drawn(prompt, received)

    async def _drawn(self, prompt: str, received: Received) -> web.StreamResponse:
        count = received.body.get("n", 1)
        job = self.new_job(f"req_{self.number()}", prompt, received, count=count)
        match job.behavior:
            case Misbehavior.SLOW:
                await self.closing.wait()
            case Misbehavior.ANSWER_DROPPED:
                raise DroppedError
            case Misbehavior.INTERNAL_ERROR:
                message = "The server had an error while processing your request."
                return _error(500, message, type="server_error")
            case Misbehavior.MODERATED_OUTPUT:
                return self._moderated("output")
        return json(200, self._answer(job), {"x-request-id": job.id, "openai-processing-ms": "8123"})

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.MODERATED_INPUT:
                return self._moderated("input")
            case Misbehavior.BAD_INPUT:
                return _error(400, "Invalid value: '5x5'.", code="invalid_value", param="size")
            case Misbehavior.RATE_LIMITED:
                return _error(429, "Rate limit reached.", type="requests", code="rate_limit_exceeded")
            case Misbehavior.NO_CAPACITY:
                return _error(503, "The engine is currently overloaded.", type="server_error")
            case Misbehavior.NO_BALANCE:
                return self._without_quota()
        return None

    def _own_refusal(self, prompt: str) -> web.StreamResponse | None:
        word = _OWN_WORDS.search(prompt)
        match word and word[1]:
            case "quota":
                return self._without_quota()
            case "hard-limit":
                message = "Billing hard limit has been reached"
                return _error(
                    400, message, type="image_generation_user_error", code="billing_hard_limit_reached"
                )
            case "unverified":
                return _error(403, "Your organization must be verified to use the model `gpt-image-2`.")
            case "bad-url":
                return _error(400, "Error while downloading the file.", code="invalid_image_url")
            case "bad-file":
                return _error(400, "Invalid image file or mode for image 1.", code="invalid_image_file")
            case "gateway":
                return web.Response(status=504, text="upstream request timeout")
        return None

    def _moderated(self, stage: str) -> web.Response:
        details = {"moderation_stage": stage, "categories": ["sexual"]}
        return _error(
            400,
            _REJECTED,
            type="image_generation_user_error",
            code="moderation_blocked",
            moderation_details=details,
        )

    def _without_quota(self) -> web.Response:
        message = "You exceeded your current quota, please check your plan and billing details."
        return _error(429, message, type="insufficient_quota", code="insufficient_quota")

    def _answer(self, job: EmulatedJob) -> dict[str, Any]:
        missing = {Misbehavior.NO_OUTPUT: job.count, Misbehavior.PARTIAL_BATCH: 1}
        count = job.count - (missing.get(job.behavior, 0) if job.behavior else 0)
        encoded = base64.b64encode(self.file(job)).decode()
        body = job.request.body
        sources = len(body.get("images", ()))
        return {
            "created": 1_795_400_100,
            "background": body.get("background", "opaque"),
            "output_format": body.get("output_format", "png"),
            "quality": body.get("quality", "medium"),
            "size": body.get("size", "1024x1024"),
            "data": [{"b64_json": encoded} for _ in range(count)],
            "usage": {
                "input_tokens": 50 + 194 * sources,
                "input_tokens_details": {"text_tokens": 50, "image_tokens": 194 * sources},
                "output_tokens": 1056 * count,
                "output_tokens_details": {"image_tokens": 1056 * count, "text_tokens": 0},
                "total_tokens": 50 + 194 * sources + 1056 * count,
            },
        }

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /models`."""
        await self.receive(request)
        if not self.authorized(request):
            return _error(401, "Incorrect API key provided.", code="invalid_api_key")
        data = [{"id": name, "object": "model", "created": 1_795_400_000} for name in MODELS]
        return json(200, {"object": "list", "data": data})
