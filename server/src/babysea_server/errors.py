"""Every error a customer can meet: the table of codes and the one exception that carries them.

Below all packages, because each noun of the product raises its own errors; turning them into answers
happens in one place (`contract.envelope`). Source: the published contract, section 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class ErrorSpec(msgspec.Struct, frozen=True):
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
    remedy: str
    """What the caller can do about it, in a sentence or two."""


_TABLE: dict[str, ErrorSpec] = {}


def _row(code: str, type: str, status: int, retryable: bool, when: str, remedy: str) -> ErrorSpec:
    spec = ErrorSpec(code, type, status, retryable, when, remedy)
    _TABLE[code] = spec
    return spec


# fmt: off
AUTHENTICATION_REQUIRED = _row("BSE1001", "authentication_required", 401, False, "The request carries no `Authorization: Bearer bye_...` header.", "Send the key as `Authorization: Bearer bye_...`; nothing else authenticates.")
AUTHENTICATION_FAILED = _row("BSE1002", "authentication_failed", 401, False, "The key is unknown in this region, revoked or expired.", "Check the key and the host: a key works only in the region where it was made. Make a new key if it was revoked or has expired.")
INSUFFICIENT_PERMISSIONS = _row("BSE1003", "insufficient_permissions", 403, False, "The key lacks the operation's scope.", "Use a key that has the scope in `details.required`; the scopes of a key are fixed when it is made.")
INSUFFICIENT_CREDITS = _row("BSE1004", "insufficient_credits", 402, False, "The account's balance does not cover the request.", "Add credits, or ask for something that costs no more than `details.credit_balance`.")
RATE_LIMIT_EXCEEDED = _row("BSE1005", "rate_limit_exceeded", 429, True, "The account sent more requests than its plan allows in a minute.", "Wait for `Retry-After` seconds and repeat; spread requests over the minute, or take a larger plan.")
AUTH_RATE_LIMITED = _row("BSE1006", "auth_rate_limited", 429, True, "The address failed to authenticate too often.", "Wait for `Retry-After` seconds and send a valid key.")
IP_NOT_ALLOWED = _row("BSE1007", "ip_not_allowed", 403, False, "The key's IP allowlist does not hold the caller's address.", "Call from an address on the allowlist, or use a key whose allowlist holds yours.")
ACCOUNT_NOT_FOUND = _row("BSE1008", "account_not_found", 404, False, "The key's account no longer exists.", "Use a key of an account that exists.")
CONCURRENCY_LIMIT_EXCEEDED = _row("BSE1009", "concurrency_limit_exceeded", 429, True, "The account has as many generations in flight as its plan allows.", "Wait until one of them is final and repeat, or take a larger plan.")
FIREWALL_REJECTED = _row("BSE1010", "firewall_rejected", 403, False, "The request is not one of the published operations.", "Correct what `details.location` names; `details.allowed` tells what may stand there.")
INVALID_INPUT = _row("BSE2001", "invalid_input", 400, False, "A field or the body is not what the model accepts.", "Correct the field in `details.field`; the message tells what is accepted, and so does `GET /v1/library/models`.")
FILE_TOO_LARGE = _row("BSE2002", "file_too_large", 422, False, "An input file's dimensions are too large.", "Send a smaller picture or clip.")
FILE_TOO_SMALL = _row("BSE2003", "file_too_small", 422, False, "An input file's dimensions are too small.", "Send a larger picture or clip.")
UNSUPPORTED_FILE_FORMAT = _row("BSE2004", "unsupported_file_format", 422, False, "An input file has a format the model does not read.", "Convert the file to a common format, such as PNG, JPEG or MP4.")
FILE_LOAD_ERROR = _row("BSE2005", "file_load_error", 422, False, "An input file could not be read.", "Check that the file opens; export it again if it does not.")
CONTENT_POLICY_VIOLATION = _row("BSE2006", "content_policy_violation", 422, False, "A provider refused the request for its content.", "Change the prompt or the input files.")
FILE_SIZE_EXCEEDED = _row("BSE2007", "file_size_exceeded", 422, False, "An input file has too many bytes.", "Compress the file, or send a smaller one.")
PARAMETER_OUT_OF_RANGE = _row("BSE2008", "parameter_out_of_range", 422, False, "A provider refused a parameter's value.", "Choose a value nearer to the model's default.")
FILE_DOWNLOAD_ERROR = _row("BSE2009", "file_download_error", 422, False, "An input file could not be downloaded.", "Check that the URL answers without login, redirects or a time limit that is over.")
PAYLOAD_TOO_LARGE = _row("BSE2010", "payload_too_large", 413, False, "The body is larger than 100 KiB.", "Send files as URLs, and shorten the rest.")
MODEL_NOT_FOUND = _row("BSE2011", "model_not_found", 404, False, "No model on offer has this identifier.", "Take an identifier from `GET /v1/library/models`.")
MODEL_MEDIA_MISMATCH = _row("BSE2012", "model_media_mismatch", 400, False, "The model makes the other kind of media.", "Use the other path: `/v1/generate/image/...` or `/v1/generate/video/...`.")
INVALID_PROVIDER_ORDER = _row("BSE2013", "invalid_provider_order", 400, False, "`generation_provider_order` names a provider the model does not have.", "Name some of the model's providers, joined by `, `, or `fastest`; `GET /v1/library/models` lists them.")
INVALID_IDEMPOTENCY_KEY = _row("BSE2014", "invalid_idempotency_key", 400, False, "The `Idempotency-Key` header is not 1 to 255 characters of A-Z a-z 0-9 _ . : -.", "Send another key, for example a UUID, and the same one again when you repeat the request.")
IDEMPOTENCY_KEY_REUSED = _row("BSE2015", "idempotency_key_reused", 409, False, "The `Idempotency-Key` was used for a different request.", "Use a new key for a new request; send the first request unchanged to have its answer again.")
IDEMPOTENCY_IN_PROGRESS = _row("BSE2016", "idempotency_in_progress", 409, True, "The first request with this `Idempotency-Key` is still being accepted.", "Wait for `Retry-After` seconds and repeat with the same key.")
GENERATION_NOT_FOUND = _row("BSE3001", "generation_not_found", 404, False, "The account has no generation with this id.", "Check the id, and that the key is of the account that made the generation; deleted ones are gone.")
GENERATION_NOT_CANCELABLE = _row("BSE3002", "generation_not_cancelable", 409, False, "The generation is final already.", "Nothing is left to cancel: read the generation.")
GENERATION_IN_PROGRESS = _row("BSE3003", "generation_in_progress", 409, False, "The generation is still in flight; cancel it first.", "Cancel it or wait until it is final, then delete it.")
PROVIDER_ERROR = _row("BSE4001", "provider_error", 502, True, "The provider failed to make the output.", "Repeat, or name other providers in `generation_provider_order`.")
PROVIDER_TIMEOUT = _row("BSE4002", "provider_timeout", 504, True, "The provider accepted the job and took too long.", "Repeat, ask for less, or name other providers in `generation_provider_order`.")
PROVIDER_RATE_LIMITED = _row("BSE4003", "provider_rate_limited", 503, True, "The provider limits our request rate.", "Repeat after a while, or name other providers in `generation_provider_order`.")
PROVIDER_CAPACITY = _row("BSE4004", "provider_capacity", 503, True, "The provider has no capacity for the model.", "Repeat after a while, or name other providers in `generation_provider_order`.")
PROVIDER_REJECTED_INPUT = _row("BSE4005", "provider_rejected_input", 422, False, "Every provider tried refused the request's values.", "Change the inputs: the model's schema allows what its providers did not take.")
ALL_PROVIDERS_FAILED = _row("BSE4006", "all_providers_failed", 502, True, "Several providers were tried and failed in different ways.", "Repeat after a while; look at `GET /v1/health/inference/providers`.")
PROVIDER_CREDITS_EXHAUSTED = _row("BSE4007", "provider_credits_exhausted", 502, False, "The operator's account at the provider has no funds.", "The operator has to add funds there; until then name other providers.")
PROVIDER_AUTHENTICATION_FAILED = _row("BSE4008", "provider_authentication_failed", 502, False, "The provider refused the operator's credentials.", "The operator has to correct the credentials; until then name other providers.")
PROVIDER_OUTCOME_UNKNOWN = _row("BSE4009", "provider_outcome_unknown", 502, False, "The request reached the provider and its answer was lost; it is not sent again, because that could buy twice.", "Make a new request if you still want the output; you were not charged for this one.")
PROVIDER_OUTPUT_INVALID = _row("BSE4010", "provider_output_invalid", 502, True, "The provider reported success without a readable output.", "Repeat, or name other providers in `generation_provider_order`.")
NO_PROVIDER_AVAILABLE = _row("BSE4011", "no_provider_available", 503, True, "No provider of the model is configured and healthy.", "Repeat after a while; the operator has to configure a provider of the model if it stays.")
INTERNAL_ERROR = _row("BSE5001", "internal_error", 500, False, "The server failed in a way it did not expect.", "Read the list of generations before you repeat a request that could buy; give the request id to the operator.")
SERVICE_UNAVAILABLE = _row("BSE5002", "service_unavailable", 503, True, "The server cannot serve the request now; nothing was accepted.", "Wait for `Retry-After` seconds and repeat.")
STORAGE_ERROR = _row("BSE5003", "storage_error", 502, True, "The output could not be stored.", "Repeat after a while; the operator has to look at the storage if it stays.")
GENERATION_EXPIRED = _row("BSE5004", "generation_expired", 504, True, "The generation did not end in time and was given up.", "Make the request again.")
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
