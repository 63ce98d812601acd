"""The envelope: every answer under `/v1` has one of these two shapes (contract, section 3)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from babysea_server.errors import ERRORS, ApiError
from babysea_server.kit.calls import Reply
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.json import dumps

RequestId = Annotated[str, Meta(description="Also in the `X-Request-Id` header.", examples=["req_8f14e45f"])]


class ProviderError(Struct, frozen=True, kw_only=True):
    """What one provider of the chain answered."""

    provider: str
    code: str
    type: str
    message: str
    retryable: bool


class ErrorBody(Struct, frozen=True, kw_only=True):
    """What went wrong."""

    code: Annotated[str, Meta(extra_json_schema={"enum": list(ERRORS)})]
    type: Annotated[
        str, Meta(extra_json_schema={"enum": list(dict.fromkeys(row.type for row in ERRORS.values()))})
    ]
    message: Annotated[str, Meta(description="A sentence that says what would be right.")]
    retryable: Annotated[
        bool, Meta(description="Repeating the very same request can succeed and cannot buy twice.")
    ]
    details: Annotated[
        Mapping[str, Any] | UnsetType, Meta(description="Facts for programs, e.g. `field`.")
    ] = UNSET
    provider_errors: list[ProviderError] | UnsetType = UNSET


class ErrorEnvelope(Struct, frozen=True, kw_only=True):
    """Every error answer."""

    status: Literal["error"]
    request_id: RequestId
    error: ErrorBody


def success_body(request_id: str, now: datetime, message: str, reply: Reply) -> bytes:
    """The body of a successful answer, sent at `now`.

    Raises:
        TypeError: the reply holds something that has no JSON form.
    """
    return dumps(
        {
            "status": "success",
            "request_id": request_id,
            "message": message,
            "timestamp": rfc3339(now),
            "data": reply.data,
            **reply.beside,
        }
    )


def error_body(request_id: str, error: ApiError) -> bytes:
    """The body of an error answer; `details` and `provider_errors` are left out when there are none."""
    spec = error.spec
    body = ErrorBody(
        code=spec.code,
        type=spec.type,
        message=error.message,
        retryable=spec.retryable,
        details=error.details or UNSET,
        provider_errors=[_provider_error(item) for item in error.provider_errors] or UNSET,
    )
    return dumps(ErrorEnvelope(status="error", request_id=request_id, error=body))


def _provider_error(item: Mapping[str, Any]) -> ProviderError:
    # Member by member, so that nothing a provider sent beyond these five can reach a customer.
    return ProviderError(
        provider=item["provider"],
        code=item["code"],
        type=item["type"],
        message=item["message"],
        retryable=item["retryable"],
    )
