"""The sandbox's other side: a small job service in the process, with its jobs in the database.

It is a `Transport`: requests of `sandbox.adapter` are answered here instead of over a network, asynchronously
and durably like a real provider's. Files are drawn when they are fetched, from the job alone, so nothing is
kept but the job, and a worker that takes over finds everything.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit import json
from babysea_server.kit.ids import token
from babysea_server.providers.base import Answer, AnswerLostError, NeverSentError, Request
from babysea_server.providers.sandbox import behavior as behaviors
from babysea_server.providers.sandbox.behavior import Behavior

if TYPE_CHECKING:
    from babysea_server.providers.sandbox.render import ImageFormat

_FILE = re.compile(r"/v1/jobs/([^/]+)/files/(\d{1,3})")
_JOB = re.compile(r"/v1/jobs/([^/]+)")
_CANCEL = re.compile(r"/v1/jobs/([^/]+)/cancel")
_RENDERERS = 2
_FOLLOWED_CLIP_S = 4.0
_KEEP_DAYS = 7
_DATABASE_PAUSE_S = 0.2
_FORGET_MAX = 1000
#: Queries at once at most: the pool is the worker's, whose lease must never wait behind thousands of polls.
_QUERIES = 4

_FORMATS: Mapping[str, "ImageFormat"] = {
    "png": "png",
    "jpg": "jpg",
    "jpeg": "jpg",
    "webp": "webp",
    "svg": "svg",
}
_REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "refuse_busy": (429, "busy", "the sandbox is told to be busy"),
    "refuse_auth": (401, "unauthorized", "the sandbox is told to refuse credentials"),
    "refuse_funds": (402, "no_funds", "the sandbox is told to be out of funds"),
    "refuse_input": (422, "invalid_input", "the sandbox is told to refuse the input"),
    "refuse_policy": (422, "content_policy", "the sandbox is told to refuse the content"),
}


class SandboxUpstream:
    """The sandbox's job service of one region.

    Args:
        latency_s: how long a job takes at the least; videos take a little longer per second.
        behaviors: behaviour by provider id, `*` for all.
        image_edge: longer edge of pictures in pixels.
    """

    def __init__(
        self,
        db: Database,
        *,
        latency_s: float = 0.8,
        behaviors: Mapping[str, Behavior] | None = None,
        image_edge: int = 1024,
    ) -> None:
        self._db = db
        self._latency_s = latency_s
        self._behaviors = behaviors or {}
        self._image_edge = image_edge
        self._renderers = asyncio.Semaphore(_RENDERERS)
        self._queries = asyncio.Semaphore(_QUERIES)

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """Answer one request of the adapter; see `Transport.send`.

        While its database is away the sandbox is slow, like a provider that restarts, not out of reach.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_s
        while True:
            try:
                async with asyncio.timeout_at(give_up_at):
                    answer = await self._answer(request)
                break
            except DatabaseUnavailableError as error:
                if error.sent:
                    raise AnswerLostError(str(error)) from error
                if loop.time() + _DATABASE_PAUSE_S > give_up_at:
                    raise NeverSentError(str(error)) from error
                await asyncio.sleep(_DATABASE_PAUSE_S)
            except TimeoutError:
                raise AnswerLostError("the sandbox took too long") from None
        if len(answer.body) > body_max:
            raise AnswerLostError(f"the answer is larger than {body_max} bytes")
        return answer

    async def close(self) -> None:
        """Nothing of its own to close."""

    async def maintain(self) -> None:
        """Delete jobs older than a week, in bounded steps."""
        while await self._execute(
            """DELETE FROM sandbox.jobs WHERE id IN (
                   SELECT id FROM sandbox.jobs WHERE created_at < now() - make_interval(days => $1)
                   ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)""",
            _KEEP_DAYS,
            _FORGET_MAX,
        ):
            pass

    async def _answer(self, request: Request) -> Answer:
        parts = urlsplit(request.url)
        if request.method == "POST" and parts.path == "/v1/jobs":
            return await self._submit(msgspec.json.decode(request.body or b"{}"))
        if request.method == "GET" and parts.path == "/v1/jobs":
            return await self._list(parse_qs(parts.query).get("reference", [""])[0])
        if request.method == "POST" and (match := _CANCEL.fullmatch(parts.path)):
            return await self._cancel(unquote(match[1]))
        if request.method == "GET" and (match := _FILE.fullmatch(parts.path)):
            return await self._file(unquote(match[1]), int(match[2]))
        if request.method == "GET" and (match := _JOB.fullmatch(parts.path)):
            return await self._job(unquote(match[1]), request.url)
        return _json(404, {"error": "not_found"})

    async def _submit(self, job: dict[str, Any]) -> Answer:
        prompt = str(job["inputs"].get("generation_prompt", ""))
        chosen = behaviors.choose(job["provider"], prompt, self._behaviors)
        if chosen.name == "never_sent":
            raise NeverSentError("the sandbox is told to be unreachable")
        if chosen.name == "lose_request":
            raise AnswerLostError("the sandbox is told to lose the request")
        if chosen.name in _REFUSALS:
            status, error, message = _REFUSALS[chosen.name]
            headers = {"retry-after": "1"} if status == 429 else {}
            return _json(status, {"error": error, "message": message}, headers)
        seconds = self._latency_s if chosen.seconds is None else chosen.seconds
        job_id = "sbx_" + token(12)
        await self._execute(
            """INSERT INTO sandbox.jobs (id, reference, provider, request, behavior, ready_at)
               VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))""",
            job_id,
            job["reference"],
            job["provider"],
            job,
            str(chosen),
            seconds,
        )
        if chosen.name == "lose_answer":
            raise AnswerLostError("the sandbox is told to lose its answer")
        return _json(201, {"id": job_id, "status": "queued", "poll_after_s": seconds})

    async def _list(self, reference: str) -> Answer:
        async with self._queries:
            rows = await self._db.fetch(
                "SELECT id FROM sandbox.jobs WHERE reference = $1 ORDER BY created_at LIMIT 10", reference
            )
        return _json(200, {"jobs": [{"id": row["id"]} for row in rows]})

    async def _job(self, job_id: str, url: str) -> Answer:
        job = await self._row(
            """SELECT request, behavior, canceled_at IS NOT NULL AS canceled, ready_at <= now() AS ready,
                      extract(epoch FROM ready_at - created_at)::float8 AS predict_seconds,
                      extract(epoch FROM ready_at - now())::float8 AS remaining
               FROM sandbox.jobs WHERE id = $1""",
            job_id,
        )
        if job is None:
            return _json(404, {"error": "not_found"})
        if job["canceled"]:
            return _json(200, {"status": "canceled"})
        if not job["ready"]:
            return _json(200, {"status": "running", "poll_after_s": max(0.0, job["remaining"])})
        match behaviors.parse(job["behavior"]).name:
            case "time_out":
                return _json(200, {"status": "running"})
            case "fail":
                return _json(200, {"status": "failed", "message": "the sandbox is told to fail"})
            case "no_output":
                count = 0
            case _:
                count = int(job["request"]["inputs"].get("generation_output_number", 1))
        outputs = [f"{url}/files/{index}" for index in range(count)]
        return _json(
            200, {"status": "succeeded", "outputs": outputs, "predict_seconds": job["predict_seconds"]}
        )

    async def _cancel(self, job_id: str) -> Answer:
        stopped = await self._execute(
            "UPDATE sandbox.jobs SET canceled_at = now() WHERE id = $1 AND canceled_at IS NULL AND "
            "(ready_at > now() OR behavior = 'time_out')",
            job_id,
        )
        return _json(200 if stopped else 409, {})

    async def _file(self, job_id: str, index: int) -> Answer:
        job = await self._row("SELECT request, behavior FROM sandbox.jobs WHERE id = $1", job_id)
        if job is None:
            return _json(404, {"error": "not_found"})
        if behaviors.parse(job["behavior"]).name == "bad_output":
            return Answer(200, {}, b"\x89PNG\r\n\x1a\n broken on purpose")
        async with self._renderers:
            data = await asyncio.to_thread(draw, job["request"], index, image_edge=self._image_edge)
        return Answer(200, {}, data)

    async def _row(self, query: str, *arguments: Any) -> Any:
        async with self._queries:
            return await self._db.fetchrow(query, *arguments)

    async def _execute(self, query: str, *arguments: Any) -> int:
        async with self._queries:
            return await self._db.execute(query, *arguments)


def draw(job: Mapping[str, Any], index: int, *, image_edge: int) -> bytes:
    """The file of one job, always the same for the same job; takes tens of milliseconds and more of CPU."""
    # Imported late: only workers draw, and the codecs take their time to load.
    from babysea_server.providers.sandbox.render import (
        Scene,
        frame_size,
        render_image,
        render_video,
        video_frame_size,
    )

    inputs = job["inputs"]
    prompt = behaviors.plain_prompt(str(inputs.get("generation_prompt", "")))
    seed = inputs.get("generation_seed")
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(job["reference"].encode()).digest()[:6], "big")
    ratio = inputs.get("generation_ratio")
    label = f"{job['model']} via {job['provider']}"
    if job["media"] == "video":
        width, height = video_frame_size(ratio, inputs.get("generation_resolution"))
        seconds = inputs.get("generation_duration") or min(job["max_seconds"] or 5, _FOLLOWED_CLIP_S)
        scene = Scene(prompt, seed, label, width, height, index)
        audio = bool(inputs.get("generation_generate_audio"))
        return render_video(scene, seconds=float(seconds), audio=audio)
    width, height = frame_size(ratio, edge=image_edge)
    wanted = inputs.get("generation_output_format") or next(iter(job["formats"]), "png")
    return render_image(Scene(prompt, seed, label, width, height, index), _FORMATS.get(wanted, "png"))


def _json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, dict(headers or {}), json.dumps(body))
