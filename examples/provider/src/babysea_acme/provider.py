"""Acme: jobs that are created, polled and canceled."""

from pathlib import Path
from urllib.parse import quote

from babysea_server.catalog.types import Traits
from babysea_server.providers.answers import Sign, at, document, failed, json_request, refused, text, told
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Provider,
    Refused,
    Request,
    Running,
)
from babysea_server.providers.mapping import native, nested

_REFUSALS = (Sign(Failure.REFUSED_POLICY, 422, says=r"content rules"),)


class Acme(Provider):
    """`POST /jobs`, `GET /jobs/{id}`, `DELETE /jobs/{id}`."""

    name = "acme"
    traits = Traits("polling", "prediction_cancel_api")
    default_base = "https://api.acme.example/v1"
    catalog_dir = Path(__file__).parent / "catalog"

    def build_submit(self, job: Job) -> Request:
        """`POST /jobs`."""
        asked = native(job)
        body = {"model": asked.model, "input": nested(asked.params)}
        return json_request("POST", f"{self.base}/jobs", self._headers(), body)

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """201 is a job."""
        if answer.status != 201:
            return refused(answer, _REFUSALS)
        id = text(document(answer).get("id"))
        return Accepted(id) if id else Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without an id")

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """`GET /jobs/{id}`."""
        return Request("GET", self._job(ticket), self._headers())

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """`done` has an address, `failed` a reason; 404 is a lost job."""
        if answer.status == 404:
            return Refused(Failure.FAILED, "Acme does not know the job any more")
        body = document(answer)
        match body.get("status"):
            case "done":
                url = text(at(body, "result", "url"))
                return Finished([Output(url=url)] if url else [])
            case "failed":
                return failed(text(body.get("reason")), ())
            case _:
                return Running()

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """`DELETE /jobs/{id}`."""
        return Request("DELETE", self._job(ticket), self._headers())

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """204 is a job that has stopped."""
        return answer.status == 204

    def build_check(self) -> Request | None:
        """`GET /me`."""
        return Request("GET", f"{self.base}/me", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """Names the account."""
        if answer.status == 200:
            return Check(True, f"account {text(document(answer).get('name'))}")
        return Check(False, told(answer))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}"}

    def _job(self, ticket: Accepted) -> str:
        return f"{self.base}/jobs/{quote(ticket.upstream_id, safe='')}"
