"""Alibaba Cloud Model Studio, as far as it is used: tasks of every endpoint, pictures at once, cancel, the list.

Beside the checklist a prompt may hold `[alibabacloud:<word>]`: `error-in-200`, `free-tier`, `quota`, `unknown-model`,
`bad-url`, `gateway`, `held-back` (every picture of the batch failed, and the task succeeded).
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

from aiohttp import web
from tests.emulators.alibabacloud_models import ANIMATE, AT_ONCE, DRAW, FILM, MODELS, complaints
from tests.emulators.kit import DroppedError, EmulatedJob, Emulator, Misbehavior, Received, asked_for, json

_OWN_WORDS = re.compile(r"\[alibabacloud:([a-z0-9-]+)\]")
_HERE = timezone(timedelta(hours=8))

_POLICY = ("DataInspectionFailed", "Input data may contain inappropriate content.")
_WITHHELD = ("DataInspectionFailed", "Output data may contain inappropriate content.")
_BROKE = ("InternalError.Algo", "An internal error has occurred during execution.")

_REFUSALS = {
    Misbehavior.BAD_KEY: (401, "InvalidApiKey", "Invalid API-key provided."),
    Misbehavior.NO_BALANCE: (
        400,
        "Arrearage",
        "Access denied, please make sure your account is in good standing.",
    ),
    Misbehavior.RATE_LIMITED: (
        429,
        "Throttling.RateQuota",
        "Requests rate limit exceeded, please try again later.",
    ),
    Misbehavior.NO_CAPACITY: (503, "ServiceUnavailable", "Service temporarily unavailable."),
    Misbehavior.BAD_INPUT: (400, "InvalidParameter", "size must be in the range of the model."),
    Misbehavior.MODERATED_INPUT: (400, *_POLICY),
}
_OWN_REFUSALS = {
    "error-in-200": (200, *_POLICY),
    "free-tier": (403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted."),
    "quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "unknown-model": (404, "ModelNotFound", "Model not exist."),
    "bad-url": (400, "InvalidURL", "The provided URL does not appear to be valid."),
    "gateway": (504, "RequestTimeOut", "The request timed out."),
}


def _error(status: int, code: str, message: str) -> web.Response:
    return json(
        status, {"code": code, "message": message, "request_id": "7438d53d-6eb8-4596-8835-000000000000"}
    )


def _moment(at: datetime) -> str:
    return at.astimezone(_HERE).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


class AlibabaCloudEmulator(Emulator):
    """Tasks finish when they are asked about; pictures of a conversation may come at once."""

    provider: ClassVar[str] = "alibabacloud"
    base_path: ClassVar[str] = "/api/v1"

    def __init__(self) -> None:
        super().__init__()
        self.polls_until_done = 0  # a task is asked about seldom

    def routes(self) -> list[web.RouteDef]:
        """The API under `/api/v1`."""
        return [
            web.post("/api/v1/services/aigc/{family}/{action}", self.create),
            web.get("/api/v1/tasks/", self.list),
            web.get("/api/v1/tasks/{id}", self.read),
            web.post("/api/v1/tasks/{id}/cancel", self.cancel),
        ]

    def submits(self) -> "list[Received]":
        """Creations, without cancels."""
        return [request for request in super().submits() if "/services/" in request.path]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /services/aigc/{family}/{action}`."""
        received = await self.receive(request)
        body = received.body
        prompt = _prompt(body)
        if not self.authorized(request):
            return _error(*_REFUSALS[Misbehavior.BAD_KEY])
        if refusal := self._refusal(prompt):
            return refusal
        endpoint = f"{request.match_info['family']}/{request.match_info['action']}"
        served, _ = MODELS.get(str(body.get("model")), (None, None))
        if served != endpoint:
            return _error(404, "ModelNotFound", "Model not exist.")
        at_once = endpoint == AT_ONCE
        if (request.headers.get("x-dashscope-async") == "enable") is at_once:
            way = "asynchronous" if at_once else "synchronous"
            return _error(403, "AccessDenied", f"current user api does not support {way} calls")
        if faults := complaints(body):
            return _error(400, "InvalidParameter", "; ".join(faults))
        job = self.new_job(
            f"0385dc79-5ff8-4d82-bcb6-{self.number():012d}",
            prompt,
            received,
            media="video" if endpoint in (FILM, ANIMATE) else "image",
            count=body["parameters"].get("max_images") or body["parameters"].get("n", 1),
            extra={"endpoint": endpoint, "submitted": datetime.now(UTC)},
        )
        if job.behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if at_once:
            return await self._drawn(job)
        output = {"task_status": "PENDING", "task_id": job.id}
        return json(200, {"output": output, "request_id": "4909100c-7b5a-9f92-bfe5-000000000000"})

    def _refusal(self, prompt: str) -> web.StreamResponse | None:
        behavior, own = asked_for(prompt), _OWN_WORDS.search(prompt)
        if behavior is Misbehavior.REQUEST_DROPPED:
            raise DroppedError
        if behavior is Misbehavior.GARBAGE:
            return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
        if behavior in _REFUSALS:
            return _error(*_REFUSALS[behavior])
        if own and own[1] in _OWN_REFUSALS:
            return _error(*_OWN_REFUSALS[own[1]])
        return None

    async def _drawn(self, job: EmulatedJob) -> web.StreamResponse:
        """The answer that is the result."""
        match job.behavior:
            case Misbehavior.SLOW:
                await self.closing.wait()
            case Misbehavior.MODERATED_OUTPUT:
                return _error(400, *_WITHHELD)
            case Misbehavior.INTERNAL_ERROR:
                return _error(500, *_BROKE)
        urls = self._files(job)
        usage = {"width": 1024, "height": 1024, "image_count": len(urls)}
        return json(
            200, {"output": {"choices": _choices(urls)}, "usage": usage, "request_id": f"request-{job.id}"}
        )

    def _files(self, job: EmulatedJob) -> "list[str]":
        if job.behavior is Misbehavior.NO_OUTPUT:
            return []
        count = 1 if job.behavior is Misbehavior.PARTIAL_BATCH else job.count
        return [f"{self.file_url(job, index)}?Expires=1764000000" for index in range(count)]

    async def read(self, request: web.Request) -> web.StreamResponse:
        """`GET /tasks/{id}`."""
        await self.receive(request)
        if not self.authorized(request):
            return _error(*_REFUSALS[Misbehavior.BAD_KEY])
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.LOST_JOB:
            output = {"task_id": request.match_info["id"], "task_status": "UNKNOWN"}
            return json(200, {"request_id": "b2a7fab4", "output": output})
        return json(200, {"request_id": "43d9e959", **self.task(job)})

    def task(self, job: EmulatedJob) -> dict[str, Any]:
        """Output and usage of a task."""
        begun = job.extra["submitted"]
        output = {"task_id": job.id, "submit_time": _moment(begun), "scheduled_time": _moment(begun)}
        if job.canceled:
            return {"output": {**output, "task_status": "CANCELED"}}
        if not self.is_done(job):
            return {"output": {**output, "task_status": "PENDING" if job.polls == 1 else "RUNNING"}}
        output["end_time"] = _moment(begun + timedelta(seconds=12.5))
        ends = {Misbehavior.MODERATED_OUTPUT: _WITHHELD, Misbehavior.INTERNAL_ERROR: _BROKE}
        if job.behavior in ends:
            code, message = ends[job.behavior]
            return {"output": {**output, "task_status": "FAILED", "code": code, "message": message}}
        return self._succeeded(job, {**output, "task_status": "SUCCEEDED"})

    def _succeeded(self, job: EmulatedJob, output: dict[str, Any]) -> dict[str, Any]:
        urls = self._files(job)
        if job.media == "video":
            seconds = job.request.body["parameters"].get("duration", 5)
            usage = {"video_count": 1, "duration": seconds, "output_video_duration": seconds, "SR": 720}
            return {"output": {**output, **({"video_url": urls[0]} if urls else {})}, "usage": usage}
        if job.extra["endpoint"] == DRAW:
            return {"output": {**output, "choices": _choices(urls)}, "usage": {"image_count": len(urls)}}
        failed = [{"code": _WITHHELD[0], "message": _WITHHELD[1]}] * (job.count - len(urls))
        if "[alibabacloud:held-back]" in job.prompt:
            urls, failed = [], [{"code": _WITHHELD[0], "message": _WITHHELD[1]}] * job.count
        results = [*({"orig_prompt": job.prompt, "url": url} for url in urls), *failed]
        metrics = {"TOTAL": job.count, "SUCCEEDED": len(urls), "FAILED": len(failed)}
        usage = {"image_count": len(urls)}
        return {"output": {**output, "results": results, "task_metrics": metrics}, "usage": usage}

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /tasks/{id}/cancel`: only what has not begun."""
        await self.receive(request)
        if not self.authorized(request):
            return _error(*_REFUSALS[Misbehavior.BAD_KEY])
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.polls > 0:
            reason = "Failed to cancel the task, please confirm if the task is in PENDING status."
            return _error(400, "UnsupportedOperation", reason)
        job.canceled = True
        return json(200, {"request_id": "45ac7f13"})

    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /tasks/`: times and models, and not what was asked."""
        received = await self.receive(request)
        assert set(received.query) <= {
            "start_time",
            "end_time",
            "model_name",
            "status",
            "page_no",
            "page_size",
        }
        if not self.authorized(request):
            return _error(*_REFUSALS[Misbehavior.BAD_KEY])
        tasks = [
            {"task_id": job.id, "model_name": job.request.body["model"], "status": "RUNNING"}
            for job in self.jobs.values()
        ]
        page = int(received.query["page_size"])
        return json(200, {"request_id": "85eaba38", "data": tasks[-page:], "total": len(tasks)})


def _prompt(body: dict[str, Any]) -> str:
    inputs = body.get("input", {})
    for message in inputs.get("messages", []):
        for part in message["content"]:
            if "text" in part:
                return str(part["text"])
    return str(inputs.get("prompt", ""))


def _choices(urls: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": [{"image": url, "type": "image"}]},
        }
        for url in urls
    ]
