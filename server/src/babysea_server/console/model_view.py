"""Models as people read them: what their inputs are called and take, what they cost, who runs them."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from babysea_server.catalog.types import FieldSpec, Model, ProviderModel
from babysea_server.console import templating
from babysea_server.kit import money
from babysea_server.routing.health import Status

Widget = Literal["area", "lines", "select", "check", "number", "url", "text"]

_PREFIX = "generation_"
_UNITS = {"generation": "per output", "second": "per second"}
_SHORT_UNITS = {"generation": "/ output", "second": "/ s"}
_WORDS = {"url": "URL", "fps": "FPS", "cfg": "CFG", "bbox": "box"}
_LONG_TEXTS = frozenset({f"{_PREFIX}prompt", f"{_PREFIX}negative_prompt"})
_VALUES_SHOWN = 24


class Input(msgspec.Struct, frozen=True):
    """One input of a model, for a form and for a table."""

    spec: FieldSpec
    label: str
    widget: Widget
    options: Sequence[tuple[str, str]]
    """Of a `select`: values and labels; an empty value leaves the choice to the model."""
    value: str
    """What the form begins with; sent only when it is changed."""
    accepted: str
    """What it takes, in words."""
    is_common: bool
    """Whether most models have it: the others stand apart."""


class Place(msgspec.Struct, frozen=True):
    """One provider of a model, and whether it can be called now."""

    id: str
    available: bool
    status: Status

    @property
    def tone(self) -> str:
        """Of its badge."""
        return {"degraded": "bad", "recovering": "warn"}.get(self.status, "good") if self.available else ""

    @property
    def why(self) -> str:
        """Whether it is used, in words."""
        if not self.available:
            return "not configured on this server"
        return {
            "degraded": "configured, but most of its last attempts failed, so others go first",
            "recovering": "configured, and tried again after failures",
            "healthy": "configured and healthy",
        }.get(self.status, "configured; no attempt in the last minutes")


def label_of(name: str) -> str:
    """A field's name in words: `Output number`."""
    words = [_WORDS.get(word, word) for word in name.removeprefix(_PREFIX).split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def inputs_of(model: Model) -> Sequence[Input]:
    """The inputs of a model in its own order, the common ones first."""
    found = [_input(spec, name not in model.specific_schema) for name, spec in model.fields.items()]
    return sorted(found, key=lambda each: not (each.is_common or each.spec.required))


def _input(spec: FieldSpec, is_common: bool) -> Input:
    widget = _widget(spec)
    default = "" if spec.default is None else _spelled(spec.default)
    return Input(
        spec,
        label_of(spec.name),
        widget,
        _options(spec) if widget == "select" else (),
        default,
        accepted(spec),
        is_common,
    )


def _widget(spec: FieldSpec) -> Widget:
    if spec.enum is not None or (spec.type == "boolean" and spec.default is None):
        return "select"
    if spec.type == "string":
        return "area" if spec.name in _LONG_TEXTS else "text"
    widgets: Mapping[str, Widget] = {
        "boolean": "check",
        "integer": "number",
        "number": "number",
        "url": "url",
        "url-array": "lines",
        "string-array": "lines",
        "object": "area",
    }
    return widgets[spec.type]


def _options(spec: FieldSpec) -> Sequence[tuple[str, str]]:
    values = [("true", "Yes"), ("false", "No")]
    if spec.enum is not None:
        values = [(str(value), str(value)) for value in spec.enum]
    if spec.default is not None or spec.required:
        return values
    return [("", "Left to the model"), *values]


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def accepted(spec: FieldSpec) -> str:
    """What a field takes, in words."""
    if spec.enum is not None:
        if len(spec.enum) > 3 and list(spec.enum) == _run(spec.enum):
            return f"{spec.enum[0]} to {spec.enum[-1]}"
        shown = ", ".join(str(value) for value in spec.enum[:_VALUES_SHOWN])
        more = len(spec.enum) - _VALUES_SHOWN
        return f"{shown} and {more} more" if more > 0 else shown
    if spec.type == "boolean":
        return "true, false"
    if spec.type in ("integer", "number"):
        return _range("a whole number" if spec.type == "integer" else "a number", spec)
    if spec.type in ("url-array", "string-array"):
        what = "URL" if spec.type == "url-array" else "text"
        if spec.max_items is None:
            return f"{what}s"
        return f"one {what}" if spec.max_items == 1 else f"up to {spec.max_items} {what}s"
    if spec.type == "string":
        return "text" if spec.max_length is None else f"text of up to {spec.max_length:,} characters"
    return {"url": "one URL", "object": "a JSON object"}[spec.type]


def _run(values: Sequence[str | int]) -> Sequence[str | int]:
    """As many whole numbers in a row as there are values; nothing for texts."""
    first = values[0]
    return [] if isinstance(first, str) else [first + step for step in range(len(values))]


def _range(what: str, spec: FieldSpec) -> str:
    if spec.min is not None and spec.max is not None:
        return f"{what} from {spec.min} to {spec.max}"
    if spec.min is not None:
        return f"{what} from {spec.min} on"
    return what if spec.max is None else f"{what} up to {spec.max}"


# ------------------------------------------------------------------------------- price


def unit_of(model: Model) -> str:
    """What its prices are for: `per output`, `per second`."""
    return _UNITS[model.pricing_unit]


def tiers_of(model: Model) -> Sequence[tuple[str, int]]:
    """The prices of a model in micro-credits, each with what it is for; one without a name where all cost the same."""
    prices: Mapping[str, Decimal] = model.pricing_tiers
    if not prices:
        if not isinstance(model.pricing, Mapping):
            assert model.pricing is not None, "only priced models are on offer"
            return [("", _micros(model.pricing))]
        prices = model.pricing
    return [(_tier(key), _micros(price)) for key, price in prices.items()]


def _micros(price: Decimal) -> int:
    return money.round_micros(price * money.MICROS_PER_CREDIT)


def _tier(key: str) -> str:
    resolution, _, sound = key.rpartition("_")
    if sound not in ("audio", "noaudio"):
        return key
    told = "with sound" if sound == "audio" else "without sound"
    return f"{resolution}, {told}" if resolution else told.capitalize()


def least_of(model: Model) -> int:
    """The lowest price in micro-credits."""
    return min(price for _, price in tiers_of(model))


def price_of(model: Model) -> str:
    """The price in a few words: `$0.003 / output`, `from $0.0005 / s`."""
    prices = {price for _, price in tiers_of(model)}
    start = "from " if len(prices) > 1 else ""
    return f"{start}{templating.credits(min(prices), None)} {_SHORT_UNITS[model.pricing_unit]}"


# ------------------------------------------------------------------------------- what it takes, who runs it


def kinds_of(model: Model) -> Sequence[str]:
    """What can be given to it: text, images, clips, sound."""
    names = model.fields
    kinds = {
        "prompt": f"{_PREFIX}prompt" in names,
        "images": f"{_PREFIX}input_file" in names,
        "clip": f"{_PREFIX}input_video_file" in names,
        "sound": f"{_PREFIX}input_audio_file" in names,
        "last frame": f"{_PREFIX}input_file_last_content" in names,
        "mask": f"{_PREFIX}mask" in names,
    }
    return [kind for kind, there in kinds.items() if there]


def can_run(places: Iterable[Place]) -> bool:
    """Whether any provider of a model can be called."""
    return any(place.available for place in places)


def narrower(provider: ProviderModel) -> Sequence[str]:
    """Where a provider takes less than the model: a few words for each input."""
    if not provider.partial:
        return ()
    return [
        f"{label_of(name)}: {_limit(limit)}" for name, limit in provider.limits.items() if limit is not True
    ]


def _limit(limit: Any) -> str:
    if limit is False or limit == []:
        return "no choice" if limit == [] else "no"
    if isinstance(limit, list):
        shown = ", ".join(_spelled(value) for value in limit[:_VALUES_SHOWN])
        more = len(limit) - _VALUES_SHOWN
        return f"{shown} and {more} more" if more > 0 else shown
    return "any" if limit == "many" else f"up to {limit}"
