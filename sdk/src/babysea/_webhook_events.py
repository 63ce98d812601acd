"""The bodies of webhooks, read into types; `babysea.webhooks` is where to import them from."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, get_args, get_origin

Credits = int | float  # as JSON writes them; 1 credit = 1 USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What an event says: fields that were not sent are None, and `extra` keeps those without a name here.

    An event that this version does not know is a plain `Data` with everything in `extra`.
    """

    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


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
        event: str = _read(str, raw.get("webhook_event"), "webhook_event")
        return Event(
            event=event,
            timestamp=_time(_read(str, raw.get("webhook_timestamp"), "webhook_timestamp")),
            delivery_id=_read(str, raw.get("webhook_delivery_id"), "webhook_delivery_id"),
            data=_read(_DATA.get(event, Data), raw.get("webhook_data"), "webhook_data"),
            raw=raw,
        )
    raise ValueError("the body is not an object")


def _time(text: str) -> datetime:
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time
    raise ValueError("webhook_timestamp is not an RFC 3339 time")


def _read(kind: Any, value: Any, name: str) -> Any:
    """The value as one of the types that fields have here; `name` is its path in the body."""
    if isinstance(kind, type) and issubclass(kind, Data):
        if isinstance(value, dict):
            return _data(kind, value, name)
    elif get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(_read(get_args(kind)[0], item, name) for item in value)
    elif isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise ValueError(f"{name} is {'missing' if value is None else 'of the wrong type'}")


def _data(kind: type[Data], value: Mapping[str, Any], name: str) -> Data:
    known = {one.name: one for one in fields(kind) if one.name != "extra"}
    values = {
        key: _read(one.type, value.get(key), f"{name}.{key}")
        for key, one in known.items()
        if key in value or one.default is MISSING  # one that has to be there is read as null, and refused
    }
    return kind(**values, extra={key: one for key, one in value.items() if key not in known})
