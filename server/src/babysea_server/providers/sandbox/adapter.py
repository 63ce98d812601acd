"""The sandbox as a provider: the pure side, which speaks the upstream's small job protocol."""

from urllib.parse import quote

from babysea_server.catalog.types import Traits
from babysea_server.kit import json
from babysea_server.providers.answers import document
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Failure,
    Finished,
    Job,
    NotFound,
    Output,
    Provider,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.settings import ProviderSettings

BASE = "http://sandbox.internal/v1"

_REFUSALS = {
    "busy": Failure.REFUSED_BUSY,
    "unauthorized": Failure.REFUSED_AUTH,
    "no_funds": Failure.REFUSED_FUNDS,
    "invalid_input": Failure.REFUSED_INPUT,
    "content_policy": Failure.REFUSED_POLICY,
}


class SandboxProvider(Provider):
    """Submit, poll, cancel and reconcile over the protocol of `sandbox.upstream`."""

    name = "sandbox"
    traits = Traits("polling", "prediction_cancel_api")
    needs = ()

    def __init__(self) -> None:
        super().__init__(ProviderSettings())

    def build_submit(self, job: Job) -> Request:
        """`POST /jobs`, with our attempt id as the reference that reconciliation asks for."""
        body = {
            "reference": str(job.attempt_id),
            "provider": job.provider_id,
            "model": job.model.identifier,
            "media": job.model.media,
            "formats": list(job.model.schema.output_formats),
            "max_seconds": job.model.max_seconds,
            "inputs": dict(job.inputs),
        }
        return Request("POST", f"{BASE}/jobs", {"content-type": "application/json"}, json.dumps(body))

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """201 is a job; everything else names why not."""
        body = document(answer)
        if answer.status == 201:
            return Accepted(body["id"], poll_after_s=float(body.get("poll_after_s", 1.0)))
        failure = _REFUSALS.get(str(body.get("error")), Failure.FAILED)
        retry_after = answer.headers.get("retry-after")
        return Refused(
            failure,
            str(body.get("message", f"HTTP {answer.status}")),
            retry_after_s=float(retry_after) if retry_after else None,
        )

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /jobs/{id}`."""
        return Request("GET", f"{BASE}/jobs/{quote(ticket.upstream_id, safe='')}")

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The job's status; 404 is a lost job."""
        body = document(answer)
        if answer.status == 404:
            return Refused(Failure.FAILED, "the sandbox has lost the job")
        match body.get("status"):
            case "succeeded":
                return Finished(
                    [Output(url=url) for url in body["outputs"]],
                    cost_micro=0,
                    predict_seconds=body["predict_seconds"],
                )
            case "failed":
                return Refused(Failure.FAILED, str(body.get("message", "the job failed")), cost_micro=0)
            case "canceled":
                return Refused(Failure.FAILED, "the job was canceled at the sandbox", cost_micro=0)
            case _:
                return Running(body.get("poll_after_s"))

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`POST /jobs/{id}/cancel`."""
        return Request("POST", f"{BASE}/jobs/{quote(ticket.upstream_id, safe='')}/cancel")

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """200 means that it stopped."""
        return answer.status == 200

    def build_reconcile(self, job: Job) -> Request | None:
        """`GET /jobs?reference=`: the sandbox lists jobs by our reference."""
        return Request("GET", f"{BASE}/jobs?reference={job.attempt_id}")

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        """An empty list is certain: the sandbox writes a job before it answers."""
        if answer.status != 200:
            return Unclear()
        jobs = document(answer).get("jobs", [])
        return Accepted(jobs[0]["id"], poll_after_s=0.0) if jobs else NotFound()
