"""Workers AI of Cloudflare, as far as it is used: running models, searching them.

Beside the checklist a prompt may hold `[cloudflare:<word>]`: `allowance`, `timeout`, `aborted`, `blocked`,
`undecodable`, `gateway`.
"""

import base64
import io
import re
from functools import lru_cache
from typing import Any, ClassVar

import jsonschema_rs
from aiohttp import web
from PIL import Image
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

ACCOUNT = "0123456789abcdef0123456789abcdef"
_OWN_WORDS = re.compile(r"\[cloudflare:([a-z-]+)\]")
_PROMPT: dict[str, Any] = {"type": "string", "minLength": 1}
_INTEGER: dict[str, Any] = {"type": "integer"}
_NUMBER: dict[str, Any] = {"type": "number"}


def _closed(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"prompt": _PROMPT, **properties},
        "required": ["prompt"],
        "additionalProperties": False,
    }


def _within(low: float, high: float) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


_FLUX_2 = {
    "width": _within(256, 1920),
    "height": _within(256, 1920),
    "seed": _INTEGER,
    "guidance": _NUMBER,
    **{f"input_image_{number}": {} for number in range(4)},
}
_DIFFUSION = _closed(
    negative_prompt={"type": "string"},
    width=_within(256, 2048),
    height=_within(256, 2048),
    num_steps=_within(1, 20),
    guidance=_NUMBER,
    strength=_NUMBER,
    seed=_INTEGER,
    image={"type": "array"},
    image_b64={"type": "string"},
    mask={"type": "array"},
)
_LEONARDO = {
    "guidance": {"type": "number", "minimum": 0, "maximum": 10},
    "seed": _INTEGER,
    "width": _within(1, 2048),
    "height": _within(1, 2048),
    "num_steps": _within(1, 50),
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "@cf/black-forest-labs/flux-1-schnell": _closed(
        prompt={**_PROMPT, "maxLength": 2048}, steps=_within(1, 8), seed=_INTEGER
    ),
    "@cf/black-forest-labs/flux-2-dev": _closed(**_FLUX_2, steps=_within(1, 50)),
    "@cf/black-forest-labs/flux-2-klein-4b": _closed(**_FLUX_2),
    "@cf/black-forest-labs/flux-2-klein-9b": _closed(**_FLUX_2),
    "@cf/leonardo/lucid-origin": _closed(**_LEONARDO, steps=_INTEGER),
    "@cf/leonardo/phoenix-1.0": _closed(**_LEONARDO, negative_prompt={"type": "string"}),
    "@cf/stabilityai/stable-diffusion-xl-base-1.0": _DIFFUSION,
    "@cf/bytedance/stable-diffusion-xl-lightning": _DIFFUSION,
}
#: Models that answer with bytes, and of which kind; the others answer in an envelope.
RAW = {
    "@cf/leonardo/phoenix-1.0": "image/jpeg",
    "@cf/stabilityai/stable-diffusion-xl-base-1.0": "image/png",
    "@cf/bytedance/stable-diffusion-xl-lightning": "image/png",
}
_VALIDATORS = {model: jsonschema_rs.validator_for(schema) for model, schema in SCHEMAS.items()}


def takes_form(model: str) -> bool:
    """Whether the model takes a form, also for a prompt alone."""
    return "/flux-2-" in model


def typed(form: dict[str, list[Any]]) -> dict[str, Any]:
    """A form as the values that its texts mean; files stay as they are."""
    values = {name: value for name, (value, *_) in form.items()}
    numbers = {
        name: float(value) if name == "guidance" else int(value)
        for name, value in values.items()
        if name in ("width", "height", "seed", "steps", "guidance")
    }
    return {**values, **numbers}


def complaint(model: str, inputs: dict[str, Any]) -> str | None:
    """What the API has against the inputs of a model."""
    for error in _VALIDATORS[model].iter_errors(
        {name: None if isinstance(value, tuple) else value for name, value in inputs.items()}
    ):
        return f"Error: invalid input at {list(error.instance_path)}: {error.message}"
    for name, value in inputs.items():
        if name.startswith("input_image_"):
            if not isinstance(value, tuple):
                return f"Error: {name} must be a file"
            with Image.open(io.BytesIO(value[2])) as image:
                if max(image.size) >= 512:
                    return f"Error: {name} must be smaller than 512x512"
    return None


def _error(status: int, code: int, message: str, result: Any = None) -> web.Response:
    errors = [{"code": code, "message": message}]
    body = {"result": result, "success": False, "errors": errors, "messages": []}
    return json(status, body, {"cf-ray": "8f00-FRA"})


@lru_cache
def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(file, "JPEG")
    return file.getvalue()


class CloudflareEmulator(Emulator):
    """Answers with one picture, in an envelope or as its bytes."""

    provider: ClassVar[str] = "cloudflare"
    base_path: ClassVar[str] = "/client/v4"

    def settings(self) -> dict[str, Any]:
        """Names the account, too."""
        return {**super().settings(), "account_id": ACCOUNT}

    def routes(self) -> list[web.RouteDef]:
        """The API under `/client/v4`."""
        account = "/client/v4/accounts/{account}/ai"
        return [
            web.post(f"{account}/run/{{model:.+}}", self.run),
            web.get(f"{account}/models/search", self.search),
        ]

    def authorized(self, request: web.Request) -> bool:
        """The token belongs to one account."""
        return super().authorized(request) and request.match_info["account"] == ACCOUNT

    async def run(self, request: web.Request) -> web.StreamResponse:
        """`POST /accounts/{account_id}/ai/run/{model}`."""
        received = await self.receive(request)
        model, body = request.match_info["model"], received.body
        inputs = body if isinstance(body, dict) else {}
        if request.content_type == "multipart/form-data":
            inputs = typed(inputs)
        prompt = str(inputs.get("prompt", ""))
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return _error(401, 10000, "Authentication error")
        refusal = self._refusal(behavior) or self._own_refusal(prompt)
        if refusal is not None:
            return refusal
        if model not in SCHEMAS:
            return _error(400, 5007, f"AiError: No such model {model} or task")
        if takes_form(model) != (request.content_type == "multipart/form-data"):
            return _error(400, 5006, "AiError: AiError: Error: oneOf at '/' not met (b7f1c2d3)")
        fault = complaint(model, inputs)
        if fault is not None:
            return _error(400, 5006, f"AiError: AiError: {fault} (b7f1c2d3)")
        return await self._ran(model, prompt, received)

    async def _ran(self, model: str, prompt: str, received: Received) -> web.StreamResponse:
        job = self.new_job(f"ray-{self.number()}", prompt, received, extra={"model": model})
        match job.behavior:
            case Misbehavior.SLOW:
                await self.closing.wait()
            case Misbehavior.ANSWER_DROPPED:
                raise DroppedError
            case Misbehavior.INTERNAL_ERROR:
                return _error(500, 3000, "AiError: AiError: Unknown internal error (c0ffee00)", {})
            case Misbehavior.MODERATED_OUTPUT:
                flagged = (
                    "Your output has been flagged. Please choose another prompt / input image combination"
                )
                return _error(400, 3030, f"AiError: AiError: {flagged} (e900ad1a)", {})
        data = self.file(job)
        headers = {"cf-ray": job.id}
        if model in RAW:
            body = b"" if job.behavior is Misbehavior.NO_OUTPUT else data
            return web.Response(body=body, content_type=RAW[model], headers=headers)
        image = {} if job.behavior is Misbehavior.NO_OUTPUT else {"image": base64.b64encode(data).decode()}
        return json(200, {"result": image, "success": True, "errors": [], "messages": []}, headers)

    def file(self, job: EmulatedJob) -> bytes:
        """Some models draw JPEG."""
        model = job.extra["model"]
        if RAW.get(model) != "image/jpeg" and "flux-1" not in model:
            return super().file(job)
        data = _jpeg()
        return data[: len(data) // 2] if job.behavior is Misbehavior.BROKEN_OUTPUT else data

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.MODERATED_INPUT:
                return _error(
                    400, 8007, "AiError: AiError: Input prompt contains NSFW content. (5d10a1b2)", {}
                )
            case Misbehavior.BAD_INPUT:
                return _error(400, 5006, "AiError: AiError: Error: '/steps' must be <= 8 (5d10a1b2)")
            case Misbehavior.RATE_LIMITED:
                return _error(429, 971, "Please wait and consider throttling your request speed")
            case Misbehavior.NO_CAPACITY:
                return _error(429, 3040, "AiError: Capacity temporarily exceeded, please try again.")
            case Misbehavior.NO_BALANCE:
                return _error(429, 3036, "AiError: Account limited: daily free neurons are used up.")
        return None

    def _own_refusal(self, prompt: str) -> web.StreamResponse | None:
        word = _OWN_WORDS.search(prompt)
        match word and word[1]:
            case "allowance":
                said = "you have used up your daily free allocation of 10,000 neurons"
                return _error(429, 4006, f"AiError: AiError: {said}")
            case "timeout":
                return _error(408, 3007, "AiError: Request timeout")
            case "aborted":
                return _error(408, 3008, "AiError: Request aborted")
            case "blocked":
                return _error(403, 3041, "AiError: Account blocked")
            case "undecodable":
                return _error(400, 3030, "AiError: AiError: unable to decode image file (a1b2c3d4)", {})
            case "gateway":
                return web.Response(
                    status=504, text="<html>gateway time-out</html>", content_type="text/html"
                )
        return None

    async def search(self, request: web.Request) -> web.StreamResponse:
        """`GET /accounts/{account_id}/ai/models/search`."""
        await self.receive(request)
        if not self.authorized(request):
            return _error(401, 10000, "Authentication error")
        return json(200, {"result": [], "success": True, "errors": [], "messages": []})
