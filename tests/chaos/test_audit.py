"""The audit finds what it looks for: each broken promise is named, and a run without fault has none."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.chaos.audit import Audit, upstream, webhooks
from tests.chaos.load import MARK
from tests.chaos.outside import Seen, SeenJob, SeenMessage
from tests.chaos.processes import has_grown, logs
from tests.chaos.servers import Sample

from babysea_server.kit.clock import SystemClock
from babysea_server.webhooks.signing import sign

SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
ROWS = {"g1": {"status": "succeeded", "error_code": None, "provider_used": "fal", "files": 1}}
DATA = {
    "generation_id": "g1",
    "generation_status": "succeeded",
    "generation_provider_used": "fal",
    "generation_output_file": ["a link"],
}


def _message(
    id: int = 1,
    event: str = "generation.completed",
    *,
    taken: bool = True,
    secret: str = SECRET,
    **data: Any,
) -> SeenMessage:
    said = {"webhook_event": event, "webhook_timestamp": "t", "webhook_data": {**DATA, **data}}
    body = json.dumps(said).encode()
    headers = sign(secret, UUID(int=id), body, SystemClock().now())
    lower = {name.lower(): value for name, value in headers.items()}
    return SeenMessage("first", lower, base64.b64encode(body).decode(), taken)


@pytest.mark.parametrize(
    ("messages", "broken"),
    [
        ([_message()], []),
        ([_message(taken=False), _message()], []),
        ([], ["every end is told to every endpoint"]),
        ([_message(taken=False)], ["every end is told to every endpoint"]),
        ([_message(1), _message(2)], ["every end is told under one id"]),
        ([_message(secret=OTHER_SECRET)], ["every message is signed"]),
        (
            [_message(), _message(generation_provider_used="replicate")],
            ["a message is the same", "says what"],
        ),
        ([_message(), _message(2, generation_id="g2")], ["no end is told that did not happen", "says what"]),
        ([_message(), _message(2, "generation.failed")], ["no end is told that did not happen", "says what"]),
        ([_message(generation_output_file=[])], ["says what"]),
    ],
)
def test_webhooks_are_held_against_what_happened(messages: list[SeenMessage], broken: list[str]) -> None:
    audit = Audit()
    webhooks(Seen([], messages, {}), ROWS, {"first": SECRET}, audit)
    assert len(audit.breaches) == len(broken), audit.breaches
    for promise, found in zip(broken, audit.breaches, strict=True):
        assert promise in found


def _job(id: str = "j1", *, provider: str = "fal") -> SeenJob:
    return SeenJob(provider, id, f"{MARK} k1", canceled=False)


def _attempt(**changes: Any) -> dict[str, Any]:
    return {
        "key": "k1",
        "provider": "fal",
        "upstream_id": "j1",
        "outcome": "used",
        "failure": None,
        "error_message": None,
        "attempt_order": 1,
        "last": 1,
        "ended": "succeeded",
        **changes,
    }


LOST = _attempt(upstream_id=None, outcome="failed", failure="outcome_unknown", ended="failed")


@pytest.mark.parametrize(
    ("attempts", "jobs", "broken"),
    [
        ([_attempt()], [_job()], []),
        ([LOST], [_job()], []),
        ([LOST], [], []),
        ([_attempt(upstream_id=None, outcome="pending", ended="canceled")], [_job()], []),
        ([_attempt(upstream_id=None, outcome="pending", ended="failed")], [_job()], ["has lost its answer"]),
        ([_attempt()], [_job(), _job("j2")], ["no job is bought twice", "has lost its answer"]),
        ([_attempt()], [_job(), _job(provider="replicate")], ["no job is without an attempt"]),
        ([_attempt()], [], ["every success comes from a job"]),
        (
            [{**LOST, "last": 2}, _attempt(provider="replicate", attempt_order=2, last=2)],
            [_job(), _job(provider="replicate")],
            ["nobody else is asked"],
        ),
    ],
)
def test_jobs_are_held_against_attempts(
    attempts: list[dict[str, Any]], jobs: list[SeenJob], broken: list[str]
) -> None:
    audit = Audit()
    upstream(attempts, Seen(jobs, [], {}), audit)
    assert len(audit.breaches) == len(broken), audit.breaches
    for promise, found in zip(broken, audit.breaches, strict=True):
        assert promise in found


def test_a_breach_shows_some_of_what_broke_and_how_many_more() -> None:
    audit = Audit()
    audit.breach("numbers are small", list(range(7)))
    audit.breach("nothing is wrong", [])
    assert audit.breaches == ["numbers are small: 0; 1; 2; 3; 4; and 2 more"]


FAULT = {"level": "error", "event": "run_crashed", "error": "no database connection: "}


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        (json.dumps(FAULT), 0),
        (json.dumps({**FAULT, "exception": "Traceback ...\nKeyError: 'x'"}), 1),
        (json.dumps({**FAULT, "error": "QueueTimeoutError"}), 0),
        (json.dumps({**FAULT, "error": "KeyError"}), 1),
        (json.dumps({"level": "error", "event": "write_refused", "error": "no database connection"}), 1),
        (json.dumps({"level": "warning", "event": "claim_failed"}), 0),
        ("error: the database of region us cannot be used", 0),
        ("Traceback (most recent call last):", 1),
        (json.dumps({"level": "info", "event": "said", "key": "bye_secret"}), 1),
    ],
)
def test_logs_are_read_line_by_line(tmp_path: Path, line: str, broken: int) -> None:
    (tmp_path / "api-1.err").write_text(f"{line}\n")
    (tmp_path / "postgres.log").write_text("bye_secret\n")
    audit = Audit()
    logs(tmp_path, ["bye_secret"], audit)
    assert len(audit.breaches) == broken, audit.breaches


def test_only_a_process_that_lived_long_enough_is_held_against_its_youth() -> None:
    mib = 1 << 20
    young = [Sample(1, 50 * mib), Sample(11, 100 * mib)]
    assert not has_grown(young)
    assert not has_grown([*young, Sample(15, 160 * mib)])
    assert not has_grown([*young, Sample(60, 160 * mib)])
    assert has_grown([*young, Sample(60, 170 * mib)])
    assert has_grown([Sample(11, 390 * mib), Sample(60, 401 * mib)])
