"""What an answer may be, whatever was asked."""

from typing import Any

import msgspec
from tests.fuzz.cases import Case
from tests.fuzz.framing import Answer, Owed, Rest

from babysea_server.errors import ERRORS, SERVICE_UNAVAILABLE

#: Whose answers are no envelopes, nor always JSON.
_PAGES = (b"/docs", b"/files")
_SUCCESS = {"status", "request_id", "message", "timestamp", "data"}
_PAGING = {"total", "limit", "offset"}
_ERROR = {"status", "request_id", "error"}
_ERROR_PARTS = {"code", "type", "message", "retryable"}
_ERROR_EXTRAS = {"details", "provider_errors"}


def faults(case: Case, owed: Owed, answers: list[Answer]) -> list[str]:
    """What is wrong with the answers, in sentences; nothing when all is well."""
    found = [fault for answer in answers for fault in _faults(case, owed, answer)]
    if len(answers) > len(owed.methods) + 1:
        found.append(f"{len(answers)} answers to {len(owed.methods)} requests")
    return found


def refusal(answer: Answer) -> str | None:
    """The error code of an answer, if it has one."""
    try:
        code: str = msgspec.json.decode(answer.body)["error"]["code"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
    return code


def generation_id(answer: Answer) -> str | None:
    """The id of a generation that this answer accepted."""
    if answer.status != 200 or b'"generation_initialized":true' not in answer.body:
        return None
    found: str = msgspec.json.decode(answer.body)["data"]["generation_id"]
    return found


def _faults(case: Case, owed: Owed, answer: Answer) -> list[str]:
    if case.refused and answer.status == 200 and b'"status":"success"' in answer.body:
        return ["what must be refused was a success"]
    if answer.status >= 500 and not (owed.rest is Rest.BODY and refusal(answer) == SERVICE_UNAVAILABLE.code):
        return [f"status {answer.status}: {answer.body[:300]!r}"]
    if not answer.body:
        # HEAD has none by rule, a preflight by its status.
        return []
    if "application/json" not in answer.headers.get("content-type", ""):
        if any(page in case.stream for page in _PAGES):
            return []
        return [f"no JSON: {answer.status} {answer.body[:200]!r}"]
    try:
        document = msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        return [f"invalid JSON ({error}): {answer.body[:200]!r}"]
    if not isinstance(document, dict) or "status" not in document:
        # The welcome and the OpenAPI document are no answers of the API.
        named = isinstance(document, dict) and "openapi" in document and answer.status == 200
        return [] if named else [f"no envelope: {answer.body[:200]!r}"]
    return _envelope_faults(answer, document)


def _envelope_faults(answer: Answer, document: dict[str, Any]) -> list[str]:
    faults = []
    if document.get("request_id") != answer.headers.get("x-request-id"):
        faults.append("request_id is not X-Request-Id")
    if document["status"] == "success":
        if answer.status != 200:
            faults.append(f"success with status {answer.status}")
        if set(document) not in (_SUCCESS, _SUCCESS | _PAGING):
            faults.append(f"members of a success: {sorted(document)}")
        return faults
    if set(document) != _ERROR or not isinstance(document["error"], dict):
        return [*faults, f"members of an error: {sorted(document)}"]
    error = document["error"]
    members = set(error)
    if not _ERROR_PARTS <= members <= _ERROR_PARTS | _ERROR_EXTRAS:
        faults.append(f"members of error: {sorted(members)}")
    spec = ERRORS.get(str(error.get("code")))
    if spec is None:
        faults.append(f"undocumented code {error.get('code')!r}")
    elif (spec.status, spec.type, spec.retryable) != (
        answer.status,
        error.get("type"),
        error.get("retryable"),
    ):
        faults.append(
            f"{spec.code} with status {answer.status}, {error.get('type')}, {error.get('retryable')}"
        )
    if answer.status == 429 and int(answer.headers.get("retry-after", "0")) < 1:
        faults.append("429 without Retry-After")
    return faults
