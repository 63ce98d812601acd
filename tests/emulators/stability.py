"""Stability AI's Stable Image, as far as it is used: generation at once, the balance.

Beside the checklist a prompt may hold `[stability:<word>]`: `unprocessable`, `forbidden`, `gateway`.
"""

import base64
import re
from typing import Any, ClassVar

import jsonschema_rs
from aiohttp import web
from tests.emulators.kit import DroppedError, Emulator, Misbehavior, Received, asked_for, json

RATIOS = ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
_REQUEST_MAX = 10 * 1024 * 1024
_OWN_WORDS = re.compile(r"\[stability:([a-z-]+)\]")

_COMMON: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": 10_000},
    "negative_prompt": {"type": "string", "maxLength": 10_000},
    "aspect_ratio": {"enum": list(RATIOS)},
    "seed": {"type": "integer", "minimum": 0, "maximum": 4_294_967_294},
    "style_preset": {"type": "string"},
    "output_format": {"enum": ["png", "jpeg", "webp"]},
}
_STRENGTH: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**_COMMON, **properties},
        "required": ["prompt"],
        "additionalProperties": False,
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "core": _closed(),
    "ultra": _closed(image={}, strength=_STRENGTH),
    "sd3": {
        **_closed(
            image={},
            strength=_STRENGTH,
            model={"enum": ["sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium"]},
            mode={"enum": ["text-to-image", "image-to-image"]},
            cfg_scale={"type": "number", "minimum": 1, "maximum": 10},
            output_format={"enum": ["png", "jpeg"]},
        ),
        "if": {"properties": {"mode": {"const": "image-to-image"}}, "required": ["mode"]},
        "then": {"required": ["image", "strength"], "properties": {"aspect_ratio": False}},
        "else": {"properties": {"image": False, "strength": False}},
    },
}
_VALIDATORS = {endpoint: jsonschema_rs.validator_for(schema) for endpoint, schema in SCHEMAS.items()}


def typed(form: dict[str, list[Any]]) -> dict[str, Any]:
    """A form as the values that its texts mean; a file is None."""
    numbers = {"seed": int, "strength": float, "cfg_scale": float}
    return {
        name: None if isinstance(value, tuple) else numbers.get(name, str)(value)
        for name, (value, *_) in form.items()
    }


def complaints(endpoint: str, inputs: dict[str, Any]) -> list[str]:
    """What the API has against a form."""
    return [
        f"{'.'.join(map(str, error.instance_path)) or 'body'}: {error.message}"
        for error in _VALIDATORS[endpoint].iter_errors(inputs)
    ]


def _error(status: int, name: str, *errors: str) -> web.Response:
    return json(status, {"id": "a1b2c3d4e5f60718293a4b5c6d7e8f90", "name": name, "errors": list(errors)})


class StabilityEmulator(Emulator):
    """Answers with one picture, as JSON or as its bytes."""

    provider: ClassVar[str] = "stability"

    def routes(self) -> list[web.RouteDef]:
        """Generation and the balance."""
        return [
            web.post("/v2beta/stable-image/generate/{endpoint:core|ultra|sd3}", self.generate),
            web.get("/v1/user/balance", self.balance),
        ]

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """`POST /v2beta/stable-image/generate/{core,ultra,sd3}`."""
        received = await self.receive(request)
        if request.content_type != "multipart/form-data":
            return _error(400, "bad_request", "content-type: must be multipart/form-data")
        inputs = typed(received.body)
        prompt = str(inputs.get("prompt", ""))
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return _error(401, "unauthorized", "authorization: invalid or missing header value")
        refusal = self._refusal(behavior) or self._own_refusal(prompt)
        if refusal is not None:
            return refusal
        if (request.content_length or 0) > _REQUEST_MAX:
            return _error(413, "payload_too_large", "body: larger than 10MiB")
        if request.headers.get("accept") not in ("application/json", "image/*"):
            return _error(400, "bad_request", "accept: must be application/json or image/*")
        faults = complaints(request.match_info["endpoint"], inputs)
        if faults:
            return _error(400, "bad_request", *faults)
        return await self._generated(prompt, received, inputs)

    async def _generated(self, prompt: str, received: Received, inputs: dict[str, Any]) -> web.StreamResponse:
        job = self.new_job(f"{self.number():032x}", prompt, received)
        match job.behavior:
            case Misbehavior.SLOW:
                await self.closing.wait()
            case Misbehavior.ANSWER_DROPPED:
                raise DroppedError
            case Misbehavior.INTERNAL_ERROR:
                return _error(500, "internal_error", "An unexpected server error occurred")
        reason = "CONTENT_FILTERED" if job.behavior is Misbehavior.MODERATED_OUTPUT else "SUCCESS"
        data, seed = self.file(job), inputs.get("seed") or 343_940_597
        if received.headers["accept"] == "image/*":
            headers = {"finish-reason": reason, "seed": str(seed), "x-request-id": job.id}
            return web.Response(body=data, content_type="image/png", headers=headers)
        body = {"image": base64.b64encode(data).decode(), "finish_reason": reason, "seed": seed}
        if job.behavior is Misbehavior.NO_OUTPUT:
            del body["image"]
        return json(200, body, {"x-request-id": job.id})

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.MODERATED_INPUT:
                flagged = "Your request was flagged by our content moderation system, and was denied"
                return _error(403, "content_moderation", flagged)
            case Misbehavior.BAD_INPUT:
                return _error(400, "bad_request", "aspect_ratio: must be one of 16:9, 1:1")
            case Misbehavior.RATE_LIMITED:
                return _error(429, "rate_limit_exceeded", "You have exceeded your rate limit")
            case Misbehavior.NO_BALANCE:
                return _error(402, "payment_required", "You lack sufficient credits to make this request")
        return None

    def _own_refusal(self, prompt: str) -> web.StreamResponse | None:
        word = _OWN_WORDS.search(prompt)
        match word and word[1]:
            case "unprocessable":
                return _error(422, "unprocessable_entity", "prompt: the language is not supported")
            case "forbidden":
                return _error(403, "forbidden", "You lack the permission to do this")
            case "gateway":
                return web.Response(
                    status=504, text="<html>gateway time-out</html>", content_type="text/html"
                )
        return None

    async def balance(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/user/balance`."""
        await self.receive(request)
        if not self.authorized(request):
            return _error(401, "unauthorized", "authorization: invalid or missing header value")
        return json(200, {"credits": 12.3})
