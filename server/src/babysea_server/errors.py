"""Every error a customer can meet: the table of codes and the one exception that carries them.

Below all packages, because each noun of the product raises its own errors; turning them into answers
happens in one place (`contract.envelope`). Source: the published contract, section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """One row of the table.

    `retryable` is true only when repeating the very same request can succeed and cannot buy twice:
    published clients repeat whatever carries it, POST included.
    """

    code: str
    type: str
    status: int
    retryable: bool
    when: str
    """When it is sent, in a sentence for the documentation."""


_TABLE: dict[str, ErrorSpec] = {}


def _row(code: str, type: str, status: int, retryable: bool, when: str) -> ErrorSpec:
    spec = ErrorSpec(code, type, status, retryable, when)
    _TABLE[code] = spec
    return spec


# fmt: off
AUTHENTICATION_REQUIRED = _row("BSE1001", "authentication_required", 401, False, "The request carries no `Authorization: Bearer bye_...` header.")
AUTHENTICATION_FAILED = _row("BSE1002", "authentication_failed", 401, False, "The key is unknown in this region, revoked or expired.")
INSUFFICIENT_PERMISSIONS = _row("BSE1003", "insufficient_permissions", 403, False, "The key lacks the operation's scope.")
INSUFFICIENT_CREDITS = _row("BSE1004", "insufficient_credits", 402, False, "The account's balance does not cover the request.")
RATE_LIMIT_EXCEEDED = _row("BSE1005", "rate_limit_exceeded", 429, True, "The account sent more requests than its plan allows in a minute.")
AUTH_RATE_LIMITED = _row("BSE1006", "auth_rate_limited", 429, True, "The address failed to authenticate too often.")
IP_NOT_ALLOWED = _row("BSE1007", "ip_not_allowed", 403, False, "The key's IP allowlist does not hold the caller's address.")
ACCOUNT_NOT_FOUND = _row("BSE1008", "account_not_found", 404, False, "The key's account no longer exists.")
CONCURRENCY_LIMIT_EXCEEDED = _row("BSE1009", "concurrency_limit_exceeded", 429, True, "The account has as many generations in flight as its plan allows.")
FIREWALL_REJECTED = _row("BSE1010", "firewall_rejected", 403, False, "The request is not one of the published operations.")
INVALID_INPUT = _row("BSE2001", "invalid_input", 400, False, "A field or the body is not what the model accepts.")
FILE_TOO_LARGE = _row("BSE2002", "file_too_large", 422, False, "An input file's dimensions are too large.")
FILE_TOO_SMALL = _row("BSE2003", "file_too_small", 422, False, "An input file's dimensions are too small.")
UNSUPPORTED_FILE_FORMAT = _row("BSE2004", "unsupported_file_format", 422, False, "An input file has a format the model does not read.")
FILE_LOAD_ERROR = _row("BSE2005", "file_load_error", 422, False, "An input file could not be read.")
CONTENT_POLICY_VIOLATION = _row("BSE2006", "content_policy_violation", 422, False, "A provider refused the request for its content.")
FILE_SIZE_EXCEEDED = _row("BSE2007", "file_size_exceeded", 422, False, "An input file has too many bytes.")
PARAMETER_OUT_OF_RANGE = _row("BSE2008", "parameter_out_of_range", 422, False, "A provider refused a parameter's value.")
FILE_DOWNLOAD_ERROR = _row("BSE2009", "file_download_error", 422, False, "An input file could not be downloaded.")
PAYLOAD_TOO_LARGE = _row("BSE2010", "payload_too_large", 413, False, "The body is larger than 100 KiB.")
MODEL_NOT_FOUND = _row("BSE2011", "model_not_found", 404, False, "No model on offer has this identifier.")
MODEL_MEDIA_MISMATCH = _row("BSE2012", "model_media_mismatch", 400, False, "The model makes the other kind of media.")
INVALID_PROVIDER_ORDER = _row("BSE2013", "invalid_provider_order", 400, False, "`generation_provider_order` names a provider the model does not have.")
INVALID_IDEMPOTENCY_KEY = _row("BSE2014", "invalid_idempotency_key", 400, False, "The `Idempotency-Key` header is not 1 to 255 characters of A-Z a-z 0-9 _ . : -.")
IDEMPOTENCY_KEY_REUSED = _row("BSE2015", "idempotency_key_reused", 409, False, "The `Idempotency-Key` was used for a different request.")
IDEMPOTENCY_IN_PROGRESS = _row("BSE2016", "idempotency_in_progress", 409, True, "The first request with this `Idempotency-Key` is still being accepted.")
GENERATION_NOT_FOUND = _row("BSE3001", "generation_not_found", 404, False, "The account has no generation with this id.")
GENERATION_NOT_CANCELABLE = _row("BSE3002", "generation_not_cancelable", 409, False, "The generation is final already.")
GENERATION_IN_PROGRESS = _row("BSE3003", "generation_in_progress", 409, False, "The generation is still in flight; cancel it first.")
PROVIDER_ERROR = _row("BSE4001", "provider_error", 502, True, "The provider failed to make the output.")
PROVIDER_TIMEOUT = _row("BSE4002", "provider_timeout", 504, True, "The provider accepted the job and took too long.")
PROVIDER_RATE_LIMITED = _row("BSE4003", "provider_rate_limited", 503, True, "The provider limits our request rate.")
PROVIDER_CAPACITY = _row("BSE4004", "provider_capacity", 503, True, "The provider has no capacity for the model.")
PROVIDER_REJECTED_INPUT = _row("BSE4005", "provider_rejected_input", 422, False, "Every provider tried refused the request's values.")
ALL_PROVIDERS_FAILED = _row("BSE4006", "all_providers_failed", 502, True, "Several providers were tried and failed in different ways.")
PROVIDER_CREDITS_EXHAUSTED = _row("BSE4007", "provider_credits_exhausted", 502, False, "The operator's account at the provider has no funds.")
PROVIDER_AUTHENTICATION_FAILED = _row("BSE4008", "provider_authentication_failed", 502, False, "The provider refused the operator's credentials.")
PROVIDER_OUTCOME_UNKNOWN = _row("BSE4009", "provider_outcome_unknown", 502, False, "The request reached the provider and its answer was lost; it is not sent again, because that could buy twice.")
PROVIDER_OUTPUT_INVALID = _row("BSE4010", "provider_output_invalid", 502, True, "The provider reported success without a readable output.")
NO_PROVIDER_AVAILABLE = _row("BSE4011", "no_provider_available", 503, True, "No provider of the model is configured and healthy.")
INTERNAL_ERROR = _row("BSE5001", "internal_error", 500, False, "The server failed in a way it did not expect.")
SERVICE_UNAVAILABLE = _row("BSE5002", "service_unavailable", 503, True, "The server cannot serve the request now; nothing was accepted.")
STORAGE_ERROR = _row("BSE5003", "storage_error", 502, True, "The output could not be stored.")
GENERATION_EXPIRED = _row("BSE5004", "generation_expired", 504, True, "The generation did not end in time and was given up.")
# fmt: on

#: The whole table, by code.
ERRORS: Mapping[str, ErrorSpec] = _TABLE


class ApiError(Exception):
    """An error answer on its way to the customer.

    Args:
        spec: the row of the table.
        message: a sentence for people that says what would be right.
        details: machine-readable facts, as the contract names them (`field`, `limit`, ...).
        provider_errors: one object per provider that failed.
        headers: response headers beyond the usual, e.g. `Retry-After`.
    """

    def __init__(
        self,
        spec: ErrorSpec,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        provider_errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{spec.code} {message}")
        self.spec = spec
        self.message = message
        self.details = details
        self.provider_errors = provider_errors
        self.headers = headers or {}


def invalid_input(field: str, message: str, **details: Any) -> ApiError:
    """BSE2001 that names the field at fault."""
    return ApiError(INVALID_INPUT, message, details={"field": field, **details})
