"""The bodies of webhooks, read into types; `babysea.webhooks` is where to import them from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from babysea import _reading
from babysea._reading import Credits


@dataclass(frozen=True, slots=True, kw_only=True)
class Data(_reading.Record):
    """What an event says: fields that were not sent are None, and `extra` keeps those without a name here.

    An event that this version does not know is a plain `Data` with everything in `extra`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationData(Data):
    """What the events of a generation have in common."""

    account_id: str
    model_identifier: str
    generation_id: str
    generation_status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStarted(GenerationData):
    """`generation.started`: a provider took it."""

    generation_provider_initialize: str | None = None
    generation_prediction_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationCompleted(GenerationData):
    """`generation.completed`: it succeeded; `generation_output_file` are the URLs of its files."""

    generation_provider_used: str | None = None
    generation_prediction_id: str | None = None
    generation_output_file: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFailed(GenerationData):
    """`generation.failed`: it failed; `generation_error_code` is a code of the API's errors."""

    generation_error: str | None = None
    generation_error_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationCanceled(GenerationData):
    """`generation.canceled`: it was canceled; `credits_refunded` went back to the balance."""

    generation_prediction_id: str | None = None
    credits_refunded: Credits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdCrossed(Data):
    """One threshold in credits, and the balance at which it was crossed."""

    threshold: Credits
    balance_at: Credits


@dataclass(frozen=True, slots=True, kw_only=True)
class LowBalance(Data):
    """`credits.low_balance`: the balance in credits fell below one threshold or more."""

    account_id: str
    current_balance: Credits
    thresholds_crossed: tuple[ThresholdCrossed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Test(Data):
    """`webhook.test`: somebody asked for it; no generation has its id, which is all zeros."""

    __test__: ClassVar = False  # pytest collects what is called Test

    account_id: str | None = None
    model_identifier: str | None = None
    generation_id: str | None = None
    generation_status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One delivery: what happened, when (an aware time), its id, the same in every attempt, and its data.

    `raw` is the whole body as JSON says it.
    """

    event: str
    timestamp: datetime
    delivery_id: str
    data: Data
    raw: Mapping[str, Any] = field(repr=False, hash=False)


_DATA: Mapping[str, type[Data]] = {
    "generation.started": GenerationStarted,
    "generation.completed": GenerationCompleted,
    "generation.failed": GenerationFailed,
    "generation.canceled": GenerationCanceled,
    "credits.low_balance": LowBalance,
    "webhook.test": Test,
}


def read_event(payload: bytes | str) -> Event:
    """The event in a body that was verified before, such as one that waited in a queue: no signature is looked at.

    Raises:
        ValueError: it is not an event; the message names the field at fault and quotes nothing of it.
    """
    try:
        raw = json.loads(payload)
    except (ValueError, RecursionError):  # the latter for nesting without end
        raise ValueError("the body is not JSON") from None
    if isinstance(raw, dict):
        event: str = _reading.read(str, raw.get("webhook_event"), "webhook_event")
        return Event(
            event=event,
            timestamp=_reading.read(datetime, raw.get("webhook_timestamp"), "webhook_timestamp"),
            delivery_id=_reading.read(str, raw.get("webhook_delivery_id"), "webhook_delivery_id"),
            data=_reading.read_record(_DATA.get(event, Data), raw.get("webhook_data"), "webhook_data"),
            raw=raw,
        )
    raise ValueError("the body is not an object")
