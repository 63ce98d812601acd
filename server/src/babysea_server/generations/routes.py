"""HTTP in and out: generate, list, one, cancel, delete."""

from collections.abc import Mapping
from typing import Any, Literal, cast
from uuid import UUID

import structlog

from babysea_server.db.pool import Database
from babysea_server.generations import store
from babysea_server.generations.cancel import Canceling
from babysea_server.generations.delete import Deleting
from babysea_server.generations.reading import Reader
from babysea_server.generations.service import Generations, generation_not_found
from babysea_server.generations.wire import (
    CancelData,
    DeleteData,
    GenerationAccepted,
    GenerationCanceled,
    GenerationView,
    generation_payload,
)
from babysea_server.kit import money
from babysea_server.kit.calls import Call, Reply
from babysea_server.outputs.links import LinkSigner


class GenerationRoutes:
    """Operations on generations of one region.

    Args:
        public_url: scheme and authority of file links; None takes what the caller used.
    """

    def __init__(
        self,
        generations: Generations,
        canceling: Canceling,
        deleting: Deleting,
        reader: Reader,
        db: Database,
        signer: LinkSigner,
        public_url: str | None,
    ) -> None:
        self._generations = generations
        self._canceling = canceling
        self._deleting = deleting
        self._reader = reader
        self._db = db
        self._signer = signer
        self._public_url = public_url

    async def generate(self, call: Call) -> Reply:
        """`POST /v1/generate/{media}/{model_identifier}`."""
        admission = await self._generations.generate(
            call.principal,
            cast(Literal["image", "video"], call.path["media"]),
            f"{call.path['lab']}/{call.path['model']}",
            call.body,
            call.headers.get("idempotency-key"),
        )
        headers = {"idempotency-replayed": "true"} if admission.result == "replayed" else {}
        assert admission.generation_id is not None
        # What is logged of this request from here on leads to the worker's lines.
        structlog.contextvars.bind_contextvars(generation_id=str(admission.generation_id))
        data: GenerationAccepted | GenerationCanceled
        if admission.status == "canceled":
            data = GenerationCanceled(generation_id=admission.generation_id, generation_status="canceled")
        else:
            data = GenerationAccepted(
                model_identifier=admission.model,
                generation_provider_order=list(admission.provider_order),
                generation_prediction_id=str(admission.prediction_id),
                generation_id=admission.generation_id,
                generation_initialized=True,
            )
        return Reply(data, headers=headers)

    async def get_generation(self, call: Call) -> Reply:
        """`GET /v1/content/{generation_id}`."""
        generation_id = UUID(call.path["generation_id"])
        row = await self._reader.get(call.principal.account_id, generation_id)
        if row is None:
            raise generation_not_found(generation_id)
        return Reply(self._payload(row, call))

    async def list_generations(self, call: Call) -> Reply:
        """`GET /v1/content/list`."""
        limit, offset = call.query["limit"], call.query["offset"]
        rows, total = await store.page(self._db, call.principal.account_id, limit=limit, offset=offset)
        return Reply(
            {"generations": [self._payload(row, call) for row in rows]},
            beside={"total": total, "limit": limit, "offset": offset},
        )

    async def cancel_generation(self, call: Call) -> Reply:
        """`POST /v1/content/generation/cancel/{generation_id}`."""
        generation_id = UUID(call.path["generation_id"])
        canceled = await self._canceling.cancel(call.principal.account_id, generation_id)
        return Reply(
            CancelData(
                generation_id=generation_id,
                generation_status="canceled",
                provider_cancel_sent=canceled.provider_asked,
                credits_refunded=money.credits(canceled.refunded),
            )
        )

    async def delete_generation(self, call: Call) -> Reply:
        """`DELETE /v1/content/{generation_id}`."""
        generation_id = UUID(call.path["generation_id"])
        deleted = await self._deleting.delete(call.principal.account_id, generation_id)
        return Reply(DeleteData(generation_id=generation_id, files_deleted=deleted))

    def _payload(self, row: Mapping[str, Any], call: Call) -> dict[str, Any]:
        origin = self._public_url or call.origin
        removed = row["files_removed_at"] is not None
        files = None if removed else row["outputs"]
        return generation_payload(
            GenerationView(
                account_id=row["account_id"],
                generation_id=row["id"],
                model_identifier=row["model"],
                media=row["media"],
                status=row["status"],
                provider_order=row["provider_order"],
                provider_used=row["provider_used"],
                prediction_id=str(row["prediction_id"]),
                inputs=row["inputs"],
                output_files=None
                if files is None
                else [self._signer.sign(origin, call.region, file["key"]) for file in files],
                created_at=row["created_at"],
                started_at=row["started_at"],
                completed_at=row["completed_at"],
                predict_seconds=None if row["predict_ms"] is None else row["predict_ms"] / 1000,
                error=row["error_message"],
                error_code=row["error_code"],
                removed=removed,
            )
        )
