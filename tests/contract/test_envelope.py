"""The two shapes of an answer, member by member."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from babysea_server.contract.envelope import error_body, success_body
from babysea_server.errors import (
    ALL_PROVIDERS_FAILED,
    GENERATION_NOT_FOUND,
    RATE_LIMIT_EXCEEDED,
    ApiError,
    invalid_input,
)
from babysea_server.kit.calls import Reply

NOW = datetime(2026, 4, 28, 12, 0, 0, 7999, tzinfo=UTC)


def test_success_has_message_timestamp_and_data() -> None:
    reply = Reply({"account_id": UUID(int=1), "apikey_expires_at": None})
    assert success_body("req_1", NOW, "API connected successfully", reply) == (
        b'{"status":"success","request_id":"req_1","message":"API connected successfully",'
        b'"timestamp":"2026-04-28T12:00:00.007Z",'
        b'"data":{"account_id":"00000000-0000-0000-0000-000000000001","apikey_expires_at":null}}'
    )


def test_a_list_has_its_totals_beside_the_data() -> None:
    reply = Reply({"generations": []}, beside={"total": 0, "limit": 50, "offset": 0})
    members = json.loads(success_body("req_1", NOW, "ok", reply))
    assert list(members)[-4:] == ["data", "total", "limit", "offset"]


def test_error_has_no_timestamp_no_data_and_no_empty_members() -> None:
    assert error_body("req_1", ApiError(GENERATION_NOT_FOUND, "No such generation.")) == (
        b'{"status":"error","request_id":"req_1","error":{"code":"BSE3001","type":"generation_not_found",'
        b'"message":"No such generation.","retryable":false}}'
    )


def test_error_carries_its_details() -> None:
    error = json.loads(error_body("req_1", invalid_input("generation_ratio", "Use 1:1.", allowed=["1:1"])))
    assert error["error"]["details"] == {"field": "generation_ratio", "allowed": ["1:1"]}
    limited = ApiError(RATE_LIMIT_EXCEEDED, "Slow down.", details={"retry_after_seconds": 12, "limit": 60})
    assert json.loads(error_body("req_1", limited))["error"]["retryable"] is True


def test_provider_errors_show_five_members_and_nothing_else() -> None:
    told = {"provider": "fal", "code": "BSE4001", "type": "provider_error", "message": "x", "retryable": True}
    error = ApiError(ALL_PROVIDERS_FAILED, "All failed.", provider_errors=[told | {"token": "secret"}])
    assert json.loads(error_body("req_1", error))["error"]["provider_errors"] == [told]


def test_data_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON form"):
        success_body("req_1", NOW, "ok", Reply(object()))
