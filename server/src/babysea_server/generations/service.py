"""Deciding a generate request: model, body, price, chain, admission; each refusal as its documented error."""

import re
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from babysea_server import errors
from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.normalise import GenerationRequest, normalise
from babysea_server.errors import ApiError
from babysea_server.generations.admission import Admission, AdmissionRequest, Admissions
from babysea_server.kit import json, money
from babysea_server.kit.calls import Principal
from babysea_server.kit.ids import uuid7
from babysea_server.routing.chain import Router
from babysea_server.telemetry.tracing import CURRENT_REQUEST

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,255}", re.ASCII)


class Generations:
    """Accepts generations of one region.

    Args:
        lifetime_s: seconds until the hard limit, from media and length of the provider chain.
    """

    def __init__(
        self,
        catalog: Catalog,
        router: Router,
        admissions: Admissions,
        lifetime_s: Callable[[str, int], int],
    ) -> None:
        self._catalog = catalog
        self._router = router
        self._admissions = admissions
        self._lifetime_s = lifetime_s

    async def generate(
        self,
        principal: Principal,
        media: Literal["image", "video"],
        identifier: str,
        document: bytes,
        idempotency_key: str | None,
    ) -> Admission:
        """Accept a request durably; the admission is `accepted` or `replayed`.

        Raises:
            ApiError: the request is not acceptable, or was certainly not accepted (retryable), or its outcome
                is unknown (never retryable without an idempotency key).
        """
        model = self._catalog.model_for(identifier, media)
        try:
            body = json.loads(document)
        except json.InvalidJsonError as error:
            raise errors.invalid_input("body", f"The body could not be read: {error}.") from error
        request = normalise(model, body)
        if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise ApiError(
                errors.INVALID_IDEMPOTENCY_KEY,
                "Idempotency-Key must be 1 to 255 characters of A-Z a-z 0-9 _ . : -.",
            )
        chain = self._router.chain(
            model.identifier, request.eligible_providers, explicit=request.provider_order is not None
        )
        fingerprint = b"" if idempotency_key is None else json.fingerprint([media, model.identifier, body])
        admission = await self._admissions.admit(
            self._admission_request(principal, request, chain, idempotency_key, fingerprint)
        )
        if admission.result not in ("accepted", "replayed"):
            raise _refusal(admission, request, principal, idempotency_key)
        return admission

    def _admission_request(
        self,
        principal: Principal,
        request: GenerationRequest,
        chain: tuple[str, ...],
        idempotency_key: str | None,
        fingerprint: bytes,
    ) -> AdmissionRequest:
        model = request.model
        return AdmissionRequest(
            generation_id=uuid7(),
            prediction_id=uuid7(),
            account_id=principal.account_id,
            apikey_id=principal.apikey_id,
            model=model.identifier,
            media=model.media,
            inputs=request.inputs,
            provider_order=chain,
            cost=request.cost_micro,
            rate_per_second=request.rate_micro_per_second,
            lifetime_s=self._lifetime_s(model.media, len(chain)),
            in_flight_limit=principal.plan.generations_in_flight,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
            request=CURRENT_REQUEST.get(),
        )


def _refusal(
    admission: Admission, request: GenerationRequest, principal: Principal, idempotency_key: str | None
) -> ApiError:
    details: dict[str, Any]
    match admission.result:
        case "account_gone":
            return ApiError(errors.ACCOUNT_NOT_FOUND, "The account of this API key no longer exists.")
        case "key_reused":
            return ApiError(
                errors.IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key was used for a different request; use a new key for a new request.",
            )
        case "over_concurrency":
            limit = principal.plan.generations_in_flight
            return ApiError(
                errors.CONCURRENCY_LIMIT_EXCEEDED,
                f"The plan {principal.plan.name} allows {limit} generations in flight; wait for one to finish.",
                details={"limit": limit, "in_flight": admission.in_flight},
                headers={"retry-after": "1"},
            )
        case "insufficient_credits":
            details = {
                "credits_required": money.credits(request.cost_micro),
                "credit_balance": money.credits(admission.balance or 0),
            }
            return ApiError(
                errors.INSUFFICIENT_CREDITS,
                f"The request costs {money.text(request.cost_micro)} credits, "
                f"the balance is {money.text(admission.balance or 0)}.",
                details=details,
            )
        case "refused":
            return ApiError(
                errors.INTERNAL_ERROR, "The server could not store the request; nothing was accepted."
            )
        case "unknown" if idempotency_key is not None:
            return ApiError(
                errors.IDEMPOTENCY_IN_PROGRESS,
                "The request is still being accepted; repeat it with the same Idempotency-Key.",
                headers={"retry-after": "1"},
            )
        case "unknown":
            # Not retryable: it may have been accepted, and a repetition would buy twice.
            return ApiError(
                errors.INTERNAL_ERROR,
                "The outcome of the request is not known; look at the list of generations before repeating it.",
            )
        case _:
            return ApiError(
                errors.SERVICE_UNAVAILABLE,
                "The service cannot accept requests right now; nothing was accepted.",
                headers={"retry-after": "1"},
            )


def generation_not_found(generation_id: UUID) -> ApiError:
    """BSE3001; a foreign generation answers exactly the same."""
    return ApiError(errors.GENERATION_NOT_FOUND, f"There is no generation {generation_id}.")
