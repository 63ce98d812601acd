"""A generation's page: what was asked for, what was made, who was tried, what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from starlette.responses import Response

from babysea_server.console import credits_store
from babysea_server.console.faults import not_found
from babysea_server.console.listing import Column
from babysea_server.console.pages.metrics import duration
from babysea_server.console.request import PageRequest

#: Rows of the ledger that one generation has at most: a reserve, a charge, a refund.
_LEDGER_MAX = 10
_ATTEMPT_COLUMNS = (
    Column("provider", "Provider"),
    Column("outcome", "Outcome"),
    Column("class", "Class"),
    Column("error", "Error"),
    Column("cost", "Cost", kind="number"),
    Column("submitted", "Submitted"),
    Column("took", "Took", kind="number"),
)
_LEDGER_COLUMNS = (
    Column("time", "Time"),
    Column("type", "Type"),
    Column("amount", "Amount", kind="number"),
    Column("balance", "Balance after", kind="number"),
)


class _Output(msgspec.Struct, frozen=True):
    """One file that was made."""

    url: str
    content_type: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it moves."""
        return self.content_type.startswith("video/")


async def show_generation(page: PageRequest) -> Response:
    """A generation with its attempts; of a deleted one, what the attempts and the ledger still tell."""
    generation_id = page.id("generation_id")
    row = await page.region.reader.get(page.account_id, generation_id)
    ledger = await credits_store.ledger(
        page.db, page.account_id, generation_id=generation_id, descending=False, limit=_LEDGER_MAX
    )
    attempts = await credits_store.attempts(page.db, page.account_id, generation_id)
    if row is None and not ledger and not attempts:
        raise not_found()
    return await page.render(
        "credits/generation.html",
        generation_id=generation_id,
        generation=row,
        model=row["model"] if row else _model(ledger, attempts),
        money=await credits_store.money(page.db, page.account_id, generation_id),
        outputs=_outputs(page, row, generation_id),
        inputs=_inputs(row),
        attempts=attempts,
        attempt_columns=_ATTEMPT_COLUMNS,
        ledger=ledger,
        ledger_columns=_LEDGER_COLUMNS,
        duration=duration,
    )


def _model(ledger: Sequence[credits_store.Entry], attempts: Sequence[Any]) -> str:
    model: str = attempts[0]["model"] if attempts else ledger[0].description
    return model


def _outputs(page: PageRequest, row: Mapping[str, Any] | None, generation_id: UUID) -> Sequence[_Output]:
    """Its files under links signed just now; none before it succeeded and after they were removed."""
    if row is None or row["files_removed_at"] is not None:
        return ()
    return [
        _Output(
            page.region.signer.sign(page.api_origin, page.region.name, file["key"]),
            file.get("content_type", ""),
            f"Output {number} of generation {generation_id}",
        )
        for number, file in enumerate(row["outputs"] or (), 1)
    ]


def _inputs(row: Mapping[str, Any] | None) -> Sequence[tuple[str, str]]:
    """What was asked for: names without their prefix, values as text."""
    if row is None:
        return ()
    return [
        (name.removeprefix("generation_").replace("_", " ").capitalize(), _text(value))
        for name, value in row["inputs"].items()
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
