"""Servers that speak OpenAI's image API: LocalAI, stable-diffusion.cpp, vLLM-Omni, SGLang, or a plain one.

`server` says which; each takes its own fields and no others, and errs in its own words. Beside the checklist a prompt
may hold `[compatible:<word>]`: `memory`, `loading`, `too-large`, `blocked`, `gateway`, `bad-picture`, `link`.
"""

import asyncio
import base64
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jsonschema_rs
from aiohttp import web
from tests.emulators.google import closed
from tests.emulators.kit import (
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    Received,
    asked_for,
    json,
)

SERVERS = ("openai", "localai", "stable-diffusion.cpp", "vllm-omni", "sglang")
_OWN_WORDS = re.compile(r"\[compatible:([a-z-]+)\]")

_TEXT = {"type": "string"}
_PROMPT = {"type": "string", "minLength": 1}
_SIZE = {"type": "string", "pattern": "^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$"}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 10}
_WHOLE = {"type": "integer"}
_SIDE = {"type": "integer", "minimum": 64, "maximum": 4096, "multipleOf": 16}
_NUMBER = {"type": "number"}
_PICTURE = {"type": "string", "pattern": "^[A-Za-z0-9+/]+=*$"}
_FORMATS = {"enum": ["png", "jpeg", "webp"]}
_SECONDS = {"type": "string", "pattern": "^[1-9][0-9]*$"}
_PIPELINE = {
    "negative_prompt": _TEXT,
    "num_inference_steps": _WHOLE,
    "guidance_scale": _NUMBER,
    "true_cfg_scale": _NUMBER,
    "seed": _WHOLE,
}
_PLAIN = {"model": _TEXT, "prompt": _PROMPT, "n": _COUNT, "size": _SIZE}
_BASE64 = {"response_format": {"const": "b64_json"}}
_DRAWN = {**_PLAIN, **_BASE64, **_PIPELINE, "output_format": _FORMATS, "output_compression": _WHOLE}
_FILMED = {"model": _TEXT, "prompt": _PROMPT, "size": _SIZE, "seconds": _SECONDS}
_MORE = {**_FILMED, **_PIPELINE, "fps": _WHOLE, "num_frames": _WHOLE}
_NATIVE = {
    "prompt": _PROMPT,
    "negative_prompt": _TEXT,
    "width": _SIDE,
    "height": _SIDE,
    "seed": _WHOLE,
    "strength": _NUMBER,
    "init_image": _PICTURE,
    "sample_params": closed(
        {
            "sample_steps": _WHOLE,
            "guidance": closed({"txt_cfg": _NUMBER, "distilled_guidance": _NUMBER}),
        }
    ),
}
_LOCALAI = {**_PLAIN, **_BASE64, "step": _WHOLE, "file": _PICTURE}
_LOCALAI_CLIP = {
    "model": _TEXT,
    "prompt": _PROMPT,
    "start_image": _PICTURE,
    "width": _SIDE,
    "height": _SIDE,
    "num_frames": _WHOLE,
    "fps": _WHOLE,
    "seconds": _WHOLE,
    "seed": _WHOLE,
    "cfg_scale": _NUMBER,
    "step": _WHOLE,
    **_BASE64,
}
#: By server and path: what it takes. Forms are texts, files aside, which are checked by their number.
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "openai": {
        "/v1/images/generations": closed(_PLAIN, "prompt"),
        "/v1/images/edits": closed(_PLAIN, "prompt"),
        "/v1/videos": closed(_FILMED, "prompt"),
    },
    "localai": {
        "/v1/images/generations": closed(
            {**_LOCALAI, "ref_images": {"type": "array", "items": _PICTURE}}, "model", "prompt"
        ),
        "/video": closed(_LOCALAI_CLIP, "model", "prompt"),
    },
    "stable-diffusion.cpp": {
        "/sdcpp/v1/img_gen": closed(
            {
                **_NATIVE,
                "batch_count": _COUNT,
                "output_format": _FORMATS,
                "output_compression": _WHOLE,
                "ref_images": {"type": "array", "items": _PICTURE},
            },
            "prompt",
        ),
        "/sdcpp/v1/vid_gen": closed({**_NATIVE, "video_frames": _WHOLE, "fps": _WHOLE}, "prompt"),
    },
    "vllm-omni": {
        "/v1/images/generations": closed(_DRAWN, "prompt"),
        "/v1/images/edits": closed(_DRAWN, "prompt"),
        "/v1/videos": closed({**_MORE, "generate_sound": {"type": "boolean"}}, "prompt"),
    },
    "sglang": {
        "/v1/images/generations": closed(_DRAWN, "prompt"),
        "/v1/images/edits": closed(_DRAWN, "prompt"),
        "/v1/videos": closed(_MORE, "prompt"),
    },
}


def complaint(server: str, path: str, body: Any) -> str | None:
    """What the server has against a body."""
    schema = SCHEMAS[server].get(path)
    if schema is None:
        return f"{server} has no {path}"
    for error in jsonschema_rs.validator_for(schema).iter_errors(body):
        return f"{list(error.instance_path)}: {error.message}"
    return None


def plain(form: Mapping[str, list[Any]], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A form's texts as the types that a server reads them as; files are left out."""
    found: dict[str, Any] = {}
    for name, values in form.items():
        [value, *_] = values
        if not isinstance(value, str):
            continue
        match schema["properties"].get(name, {}).get("type"):
            case "integer" if value.lstrip("-").isdigit():
                found[name] = int(value)
            case "number":
                found[name] = float(value)
            case "boolean" if value in ("true", "false"):
                found[name] = value == "true"
            case _:
                found[name] = value
    return found


class OpenAICompatibleEmulator(Emulator):
    """One server of a kind. Jobs are done when they are polled often enough."""

    provider: ClassVar[str] = "openai_compatible"
    server: str = "vllm-omni"

    def __init__(self) -> None:
        super().__init__()
        self._closing = asyncio.Event()

    def settings(self) -> dict[str, Any]:
        """With the server's name."""
        return {**super().settings(), "options": {"server": self.server}}

    def app(self) -> web.Application:
        """Lets go of what is held when it closes."""
        app = super().app()

        async def close(_: web.Application) -> None:
            self._closing.set()

        app.on_shutdown.append(close)
        return app

    def routes(self) -> list[web.RouteDef]:
        """All servers' routes; those of others are answered with 404."""
        return [
            *(
                web.post(path, self.submit)
                for path in sorted({path for paths in SCHEMAS.values() for path in paths})
            ),
            web.get("/v1/videos/{id}", self.job),
            web.delete("/v1/videos/{id}", self.delete),
            web.get("/v1/videos/{id}/content", self.content),
            web.get("/sdcpp/v1/jobs/{id}", self.job),
            web.post("/sdcpp/v1/jobs/{id}/cancel", self.delete),
            web.get("/generated-images/{id}.png", self.content),
            web.get("/v1/models", self.models),
        ]

    def _error(self, status: int, message: str, code: str = "") -> web.Response:
        body: Any = {"detail": message}
        if self.server == "stable-diffusion.cpp":
            body = {"error": message}
        elif self.server in ("localai", "openai"):
            body = {"error": {"code": code or status, "message": message, "type": ""}}
        elif status == 422:
            body = {"detail": [{"loc": ["body"], "msg": message, "type": "value_error"}]}
        return json(status, body)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Whatever makes something."""
        received = await self.receive(request)
        schema = SCHEMAS[self.server].get(request.path)
        if schema is None:
            return self._error(404, "Not Found")
        is_form = request.content_type == "multipart/form-data"
        body = plain(received.body, schema) if is_form else received.body
        prompt = str(body.get("prompt", ""))
        behavior = asked_for(prompt)
        if not self.authorized(request) or behavior is Misbehavior.BAD_KEY:
            return self._error(401, "Unauthorized")
        refusal = self._refusal(behavior) or self._own_refusal(prompt)
        if refusal is not None:
            return refusal
        fault = complaint(self.server, request.path, body)
        if request.path.endswith("/edits") and not received.body.get("image"):
            fault = "image or url is needed"
        if fault is not None:
            return self._error(422 if self.server in ("vllm-omni", "sglang") else 400, fault)
        video = request.path in ("/v1/videos", "/video", "/sdcpp/v1/vid_gen")
        count = int(body.get("n", body.get("batch_count", 1)))
        media = "video" if video else "image"
        job = self.new_job(f"job_{self.number()}", prompt, received, media=media, count=count)
        return await self._begun(job, path=request.path)

    async def _begun(self, job: EmulatedJob, path: str) -> web.StreamResponse:
        if job.behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if path.startswith("/sdcpp/"):
            kind = path.rpartition("/")[2]
            about = {"id": job.id, "kind": kind, "status": "queued", "created": 1775401200}
            return json(202, {**about, "poll_url": f"/sdcpp/v1/jobs/{job.id}"})
        if path == "/v1/videos":
            return json(200, self._video(job, "queued"))
        match job.behavior:
            case Misbehavior.SLOW:
                await self._closing.wait()
            case Misbehavior.INTERNAL_ERROR:
                return self._error(500, "RuntimeError: mat1 and mat2 shapes cannot be multiplied")
        return json(200, self._answer(job))

    def _answer(self, job: EmulatedJob) -> dict[str, Any]:
        """ImagesResponse, as each server makes it."""
        count = 1 if job.behavior is Misbehavior.PARTIAL_BATCH else job.count
        item: dict[str, Any] = {"b64_json": self._encoded(job), "url": None, "revised_prompt": None}
        if self.server == "localai" or _own_word(job.prompt) == "link":
            item = {"url": f"/generated-images/{job.id}.png"}
            if _own_word(job.prompt) == "link":
                item = {
                    "url": self.file_url(job).replace("127.0.0.1", "localhost")
                }  # another host than its own
        beside: dict[str, Any] = {"sglang": {"id": job.id, "inference_time_s": 1.5}}.get(self.server, {})
        data = [] if job.behavior is Misbehavior.NO_OUTPUT else [item] * count
        return {"created": 1775401200, "data": data, **beside}

    def _encoded(self, job: EmulatedJob) -> str:
        return base64.b64encode(self.file(job)).decode()

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.BAD_INPUT:
                return self._error(400, "Invalid size format: '5by5'")
            case Misbehavior.RATE_LIMITED:
                return self._error(429, "Too many requests")
            case Misbehavior.NO_CAPACITY if self.server == "stable-diffusion.cpp":
                return self._error(429, "job queue is full")
            case Misbehavior.NO_CAPACITY:
                return self._error(503, "The engine is not ready")
        return None

    def _own_refusal(self, prompt: str) -> web.StreamResponse | None:
        match _own_word(prompt):
            case "memory":
                return self._error(
                    500, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB."
                )
            case "loading":
                return self._error(500, "the model is still loading")
            case "too-large":
                return self._error(400, "Requested size exceeds --max-generated-image-size")
            case "blocked":
                return self._error(400, "Your request was rejected.", "moderation_blocked")
            case "gateway":
                return web.Response(
                    status=504, text="<html>gateway time-out</html>", content_type="text/html"
                )
            case "bad-picture":
                return self._error(400, "cannot identify image file")
        return None

    async def job(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/videos/{id}` and `GET /sdcpp/v1/jobs/{id}`."""
        await self.receive(request)
        if not self.authorized(request):
            return self._error(401, "Unauthorized")
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.LOST_JOB:
            return self._error(404, "not found")
        native = request.path.startswith("/sdcpp/")
        if job.canceled:
            status = "cancelled"
        elif not self.is_done(job):
            status = "generating" if native else "in_progress"
        else:
            status = "failed" if job.behavior is Misbehavior.INTERNAL_ERROR else "completed"
        return json(200, self._native(job, status) if native else self._video(job, status))

    def _native(self, job: EmulatedJob, status: str) -> dict[str, Any]:
        result: dict[str, Any] | None = None
        if status == "completed" and job.media == "video":
            result = {
                "output_format": "webm",
                "mime_type": "video/webm",
                "fps": 16,
                "b64_json": self._encoded(job),
            }
        elif status == "completed":
            count = {Misbehavior.PARTIAL_BATCH: 1, Misbehavior.NO_OUTPUT: 0}.get(
                job.behavior or Misbehavior.SLOW
            )
            indices = range(job.count if count is None else count)
            images = [{"index": index, "b64_json": self._encoded(job)} for index in indices]
            result = {"output_format": "png", "images": images}
        error = {"code": "generation_failed", "message": "generate_image returned empty results"}
        return {
            "id": job.id,
            "status": status,
            "created": 1775401200,
            "started": 1775401203,
            "completed": 1775401215 if status == "completed" else None,
            "queue_position": 0,
            "result": result,
            "error": error if status == "failed" else None,
        }

    def _video(self, job: EmulatedJob, status: str) -> dict[str, Any]:
        failed = status == "failed"
        error = {"code": "server_error", "message": "generation failed"} if failed else None
        return {"id": job.id, "object": "video", "status": status, "progress": 0, "error": error}

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /v1/videos/{id}` and `POST /sdcpp/v1/jobs/{id}/cancel`."""
        await self.receive(request)
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return self._error(404, "not found")
        if job.polls > self.polls_until_done:
            return self._error(409, "the job has ended")
        if request.path.startswith("/sdcpp/"):
            job.canceled = True
            return json(200, self._native(job, "cancelled"))
        del self.jobs[job.id]
        return json(200, {"id": job.id, "deleted": True, "object": "video.deleted"})

    async def content(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/videos/{id}/content`, and what LocalAI has drawn."""
        await self.receive(request)
        if not self.authorized(request):
            return self._error(401, "Unauthorized")
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.EXPIRED_OUTPUT:
            return self._error(404, "not found")
        self.files_fetched += 1
        return web.Response(body=self.file(job))

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models`."""
        await self.receive(request)
        if not self.authorized(request):
            return self._error(401, "Unauthorized")
        return json(200, {"object": "list", "data": [{"id": "a-model", "object": "model"}]})

    def submits(self) -> list[Received]:
        """All but cancels."""
        return [request for request in super().submits() if not request.path.endswith("/cancel")]


def _own_word(prompt: str) -> str | None:
    found = _OWN_WORDS.search(prompt)
    return found[1] if found else None
