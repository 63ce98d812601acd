"""Replicate's predictions API, as far as it is used: create, read, list, cancel, the webhook secret, the account."""

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import jsonschema_rs
import msgspec
from aiohttp import web
from tests.emulators.kit import (
    SECRET_MARK,
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    Received,
    asked_for,
    json,
)
from tests.emulators.replicate_inputs import INPUTS

_SIGNING_SECRET = "whsec_" + base64.b64encode(f"{SECRET_MARK}-webhooks".encode()).decode()
_FINAL = ("succeeded", "failed", "canceled", "aborted")
_PAGE = 100
_NO_CREDIT = (
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to "
    "purchase credit. Once you purchase credit, please wait a few minutes before trying again."
)
_THROTTLED = "Request was throttled. Your rate limit resets in ~30s."
_NOT_FOUND = "The requested resource could not be found."
_BUSY = "Service is currently unavailable due to high demand. Please try again later. (E003)"

_BODY = {
    "input": {"type": "object"},
    "webhook": {"type": "string", "pattern": "^(https://|http://127\\.0\\.0\\.1:)"},
    "webhook_events_filter": {"type": "array", "items": {"enum": ["start", "output", "logs", "completed"]}},
    "stream": {"type": "boolean"},
}
_VERSION = {"type": "string", "pattern": "^([a-z0-9_.-]+/[a-z0-9_.-]+(:[0-9a-f]{64})?|[0-9a-f]{64})$"}
_OF_MODEL = {"type": "object", "properties": _BODY, "required": ["input"], "additionalProperties": False}
_OF_VERSION = {
    "type": "object",
    "properties": {"version": _VERSION, **_BODY},
    "required": ["version", "input"],
    "additionalProperties": False,
}
_CANCEL_AFTER = re.compile(r"([1-9][0-9]*)([sm])")
_PREFER = re.compile(r"wait(=([1-9]|[1-5][0-9]|60))?")
#: Models that only run by version; they have no endpoint of their own.
_COMMUNITY = {
    "stability-ai/sdxl",
    "bytedance/sdxl-lightning-4step",
    "nvidia/sana",
    "tencent/hunyuan-video",
}
_COUNTS = ("num_outputs", "number_of_images", "num_images", "max_images")
_CLIPS = ("duration", "seconds", "video", "first_frame_image")
_OWN_WORD = re.compile(r"\[replicate:([a-z-]+)\]")
_FAULTS = {
    "required": ("required", "{name} is required"),
    "enum": ("enum", "{name} must be one of the following: {options}"),
    "maximum": ("number_lte", "{name} must be less than or equal to {limit}"),
    "minimum": ("number_gte", "{name} must be greater than or equal to {limit}"),
    "additionalProperties": ("additional_property_not_allowed", "Unexpected field {name}"),
}


def _problem(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json"
    )


def _titled(status: int, title: str, detail: str) -> web.Response:
    return _problem(status, {"title": title, "detail": detail, "status": status})


def _invalid(faults: list[dict[str, str]]) -> web.Response:
    detail = "".join(f"- {fault['field']}: {fault['description']}\n" for fault in faults)
    title = "Input validation failed"
    return _problem(422, {"detail": detail, "status": 422, "title": title, "invalid_fields": faults})


def _faults(value: Any, schema: dict[str, Any], place: str) -> list[dict[str, str]]:
    """What is wrong, in the service's own words."""
    faults = []
    for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(value):
        kind, path = error.kind.name, [str(step) for step in error.instance_path]
        field = ".".join(filter(None, [place, *path]))
        name = field.rpartition(".")[2]
        if kind == "required":
            name = re.findall(r'"([^"]+)"', error.message)[-1]
        if kind == "additionalProperties":
            name = ", ".join(re.findall(r"'([^']+)'", error.message))
        rule: Any = schema
        for step in error.schema_path:
            rule = rule[step]
        options = ", ".join(f'"{option}"' for option in rule) if isinstance(rule, list) else ""
        type_, says = _FAULTS.get(kind, ("invalid_type", "{name} is not as it must be"))
        description = says.format(name=name, options=options, limit=rule)
        faults.append({"type": type_, "field": field, "description": description})
    return faults


class ReplicateEmulator(Emulator):
    """Predictions finish when they are polled often enough, and call back then.

    A prompt with `[replicate:<word>]` gets what only this service does: `aborted` and `overdue` (a deadline before
    and after the start), `busy` (a partner's model without capacity), `stopped` (canceled by somebody else).
    """

    provider: ClassVar[str] = "replicate"
    base_path: ClassVar[str] = "/v1"

    def routes(self) -> list[web.RouteDef]:
        """The API under `/v1`."""
        return [
            web.post("/v1/models/{owner}/{name}/predictions", self.create),
            web.post("/v1/predictions", self.create),
            web.get("/v1/predictions", self.browse),
            web.get("/v1/predictions/{id}", self.read),
            web.post("/v1/predictions/{id}/cancel", self.cancel),
            web.get("/v1/webhooks/default/secret", self.secret),
            web.get("/v1/account", self.account),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /models/{owner}/{name}/predictions` and `POST /predictions`."""
        received = await self.receive(request)
        if not self.authorized(request):
            return self._unauthenticated()
        refusal = self._malformed(request, received)
        if refusal is not None:
            return refusal
        inputs = received.body["input"]
        prompt = str(inputs.get("prompt", ""))
        behavior = asked_for(prompt)
        refusal = self._refusal(behavior)
        if refusal is not None:
            return refusal
        job = self._accept(request, received, prompt)
        if behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        if behavior is Misbehavior.CALLBACK_EARLY:
            self.call_back(job, lambda forged: self._signed(job, forged, status="succeeded"))
        headers = {"ratelimit-remaining": "599", "ratelimit-reset": "1"}
        if prefer := request.headers.get("prefer"):
            job.extra["inline"] = True
            answer = self.prediction(job, "processing") | {"output": self._output(job)}
            return json(201, answer, headers | {"preference-applied": prefer})
        return json(201, self.prediction(job, "starting"), headers)

    def _malformed(self, request: web.Request, received: Received) -> web.StreamResponse | None:
        """What is refused whoever asks: an unknown model, a body or headers that are not as documented."""
        cancel_after = request.headers.get("cancel-after")
        if cancel_after is not None and (
            (found := _CANCEL_AFTER.fullmatch(cancel_after)) is None
            or int(found[1]) * (60 if found[2] == "m" else 1) < 5
        ):
            return _titled(
                422, "Invalid Cancel-After header", f"{cancel_after} is no duration of at least 5s"
            )
        if not _PREFER.fullmatch(request.headers.get("prefer", "wait")):
            return _titled(422, "Invalid Prefer header", "Prefer takes wait, or wait=1 to wait=60")
        model = self._model(request)
        if model in _COMMUNITY:
            return _titled(404, "Not found", _NOT_FOUND)
        faults = _faults(received.body, _OF_MODEL if model else _OF_VERSION, "")
        if faults:
            return _invalid(faults)
        named = model or received.body["version"].partition(":")[0]
        faults = _faults(received.body["input"], INPUTS.get(named, {}), "input")
        return _invalid(faults) if faults else None

    def _model(self, request: web.Request) -> str:
        found = request.match_info
        return f"{found['owner']}/{found['name']}" if "owner" in found else ""

    def _accept(self, request: web.Request, received: Received, prompt: str) -> EmulatedJob:
        inputs = received.body["input"]
        model = self._model(request) or received.body["version"].partition(":")[0]
        video = "video" in model or any(name in inputs for name in _CLIPS)
        count = next((name for name in _COUNTS if name in inputs), None)
        if count == "max_images" and inputs.get("sequential_image_generation") != "auto":
            count = None
        created = datetime.now(UTC)
        deadline = _CANCEL_AFTER.fullmatch(request.headers.get("cancel-after", ""))
        seconds = int(deadline[1]) * (60 if deadline[2] == "m" else 1) if deadline else None
        return self.new_job(
            f"{self.number():026d}",
            prompt,
            received,
            media="video" if video else "image",
            count=int(inputs[count]) if count else 1,
            callback_url=received.body.get("webhook"),
            extra={
                "model": model,
                "created": created,
                "deadline": created + timedelta(seconds=seconds) if seconds else None,
                "list": count is not None,
            },
        )

    def _refusal(self, behavior: Misbehavior | None) -> web.StreamResponse | None:
        match behavior:
            case Misbehavior.BAD_KEY:
                return self._unauthenticated()
            case Misbehavior.REQUEST_DROPPED:
                raise DroppedError
            case Misbehavior.GARBAGE:
                return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
            case Misbehavior.NO_BALANCE:
                return _titled(402, "Insufficient credit", _NO_CREDIT)
            case Misbehavior.RATE_LIMITED:
                return _problem(429, {"detail": _THROTTLED})
            case Misbehavior.NO_CAPACITY:
                return _titled(503, "Service Unavailable", "no capacity")
            case Misbehavior.BAD_INPUT:
                description = 'aspect_ratio must be one of the following: "1:1"'
                return _invalid([{"type": "enum", "field": "input.aspect_ratio", "description": description}])
        return None

    def _unauthenticated(self) -> web.Response:
        return _titled(401, "Unauthenticated", "You did not pass a valid authentication token")

    async def read(self, request: web.Request) -> web.StreamResponse:
        """`GET /predictions/{id}`."""
        await self.receive(request)
        if not self.authorized(request):
            return self._unauthenticated()
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.LOST_JOB:
            return _titled(404, "Not found", _NOT_FOUND)
        status = self._status(job)
        answer = self.prediction(job, status)
        if status in _FINAL and not job.extra.get("told"):
            job.extra["told"] = True
            self.call_back(job, lambda forged: self._signed(job, forged, status=status))
        return json(200, answer)

    def _status(self, job: EmulatedJob) -> str:
        if "ended" not in job.extra and self.is_done(job):
            job.extra["ended"] = self._ending(job)
        return str(job.extra.get("ended", "processing"))

    def _ending(self, job: EmulatedJob) -> str:
        failing = (Misbehavior.INTERNAL_ERROR, Misbehavior.MODERATED_INPUT, Misbehavior.MODERATED_OUTPUT)
        own = {"aborted": "aborted", "overdue": "canceled", "stopped": "canceled", "busy": "failed"}
        if (word := self._word(job)) is not None:
            return own[word]
        return "failed" if job.behavior in failing else "succeeded"

    def _word(self, job: EmulatedJob) -> str | None:
        found = _OWN_WORD.search(job.prompt)
        return found[1] if found else None

    def prediction(self, job: EmulatedJob, status: str) -> dict[str, Any]:
        """The Prediction object."""
        created, deadline = job.extra["created"], job.extra["deadline"]
        completed = None
        if status in _FINAL:
            completed = deadline if self._word(job) == "overdue" else created + timedelta(seconds=0.85)
        urls = f"{self.base_url}/predictions/{job.id}"
        return {
            "id": job.id,
            "model": job.extra["model"],
            "version": "hidden",
            "input": job.request.body["input"],
            "logs": "",
            "output": self._output(job) if status == "succeeded" else None,
            "data_removed": False,
            "error": self._error(job) if status == "failed" else None,
            "source": "api",
            "status": status,
            "created_at": _time(created),
            "completed_at": _time(completed) if completed else None,
            **({"deadline": _time(deadline)} if deadline else {}),
            "metrics": {"predict_time": 0.84, "total_time": 0.85} if status in _FINAL else {},
            "urls": {"get": urls, "cancel": f"{urls}/cancel", "web": f"https://replicate.com/p/{job.id}"},
        }

    def _error(self, job: EmulatedJob) -> str:
        if self._word(job) == "busy":
            return _BUSY
        said = {
            Misbehavior.MODERATED_INPUT: "The input was flagged as sensitive. Please try again. (E005)",
            Misbehavior.MODERATED_OUTPUT: "NSFW content detected. Try running it again, or try a different prompt.",
        }
        return said.get(job.behavior or Misbehavior.SLOW, "Prediction interrupted; please retry (code: PA)")

    def _output(self, job: EmulatedJob) -> Any:
        if job.behavior is Misbehavior.NO_OUTPUT:
            return None
        count = 1 if job.behavior is Misbehavior.PARTIAL_BATCH else job.count
        urls = [self.file_url(job, index) for index in range(count)]
        if job.extra.get("inline"):
            encoded = base64.b64encode(self.file(job)).decode()
            urls = [f"data:image/png;base64,{encoded}" for _ in urls]
        return urls if job.extra["list"] else urls[0]

    async def browse(self, request: web.Request) -> web.StreamResponse:
        """`GET /predictions?created_after&created_before`: newest first, a hundred to a page."""
        received = await self.receive(request)
        if not self.authorized(request):
            return self._unauthenticated()
        if not set(received.query) <= {"created_after", "created_before", "cursor"}:
            return _titled(400, "Bad request", "unknown parameter")
        after, before = (
            datetime.fromisoformat(received.query[name]) if name in received.query else None
            for name in ("created_after", "created_before")
        )
        found = [
            self.prediction(job, str(job.extra.get("ended", "processing")))
            for job in reversed(self.jobs.values())
            if (after is None or job.extra["created"] >= after)
            and (before is None or job.extra["created"] < before)
        ]
        more = f"{self.base_url}/predictions?cursor=next" if len(found) > _PAGE else None
        return json(200, {"next": more, "previous": None, "results": found[:_PAGE]})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /predictions/{id}/cancel`: what has ended stays as it is."""
        await self.receive(request)
        if not self.authorized(request):
            return self._unauthenticated()
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _titled(404, "Not found", _NOT_FOUND)
        job.canceled = job.extra.setdefault("ended", "canceled") == "canceled"
        return json(200, self.prediction(job, str(job.extra["ended"])))

    async def secret(self, request: web.Request) -> web.StreamResponse:
        """`GET /webhooks/default/secret`."""
        await self.receive(request)
        if not self.authorized(request):
            return self._unauthenticated()
        return json(200, {"key": _SIGNING_SECRET})

    async def account(self, request: web.Request) -> web.StreamResponse:
        """`GET /account`."""
        await self.receive(request)
        if not self.authorized(request):
            return self._unauthenticated()
        return json(200, {"type": "organization", "username": "acme", "name": "Acme"})

    def submits(self) -> list[Received]:
        """Creations, without cancels."""
        return [request for request in super().submits() if request.path.endswith("/predictions")]

    def _signed(self, job: EmulatedJob, forged: bool, *, status: str) -> tuple[dict[str, str], bytes]:
        body = msgspec.json.encode(self.prediction(job, status))
        id, timestamp = f"msg_{job.id}", str(int(datetime.now(UTC).timestamp()))
        key = b"somebody else" if forged else base64.b64decode(_SIGNING_SECRET.removeprefix("whsec_"))
        digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        headers = {
            "content-type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        return headers, body


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
