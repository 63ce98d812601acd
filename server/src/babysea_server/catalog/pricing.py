"""What a request costs: integer micro-credits from exact decimals, rounded once, at the end."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from babysea_server.catalog.types import Model, Price
from babysea_server.kit.money import MICROS_PER_CREDIT, round_micros

#: Clips are drawn at 24 frames per second where a request counts frames and names no other rate.
_FRAMES_PER_SECOND = 24
#: All inputs that a price can depend on.
_PRICED = (
    "generation_output_number",
    "generation_resolution",
    "generation_quality",
    "generation_generate_audio",
    "generation_duration",
    "generation_frames",
    "generation_fps",
)
_QUOTES_REMEMBERED = 1000


class Quote(msgspec.Struct, frozen=True):
    """The price of one request.

    `cost_micro` is what is reserved. `per_second` is in micro-credits per second and output, for models
    priced by the second. `seconds` is the length that is priced. `resolution` is set where the price
    depends on it.
    """

    cost_micro: int
    per_second: Decimal | None
    seconds: int | None
    resolution: str | None


def quote(model: Model, inputs: Mapping[str, Any]) -> Quote:
    """The price of a request with these accepted inputs, defaults filled in.

    Images cost price x outputs. Clips cost rate x seconds x outputs; a length that follows the source clip is
    priced at the model's maximum. A value without a tier of its own (`auto`) is billed by the dearest tier,
    because the provider may choose that one.

    Raises:
        ValueError: the model has no price.
    """
    if model.pricing is None:
        raise ValueError(f"{model.identifier} has no price")
    priced = tuple([inputs.get(name) for name in _PRICED])
    known: Quote | None = model.compiled.quotes.get(priced)
    if known is None:
        known = _quote(model, inputs)
        if len(model.compiled.quotes) < _QUOTES_REMEMBERED:
            model.compiled.quotes[priced] = known
    return known


def operator_cost(
    model: Model, provider_id: str, inputs: Mapping[str, Any], *, seconds: float | None = None
) -> int | None:
    """What a request costs the operator at a provider, in micro-dollars; None where its price is not known.

    Args:
        seconds: the measured length, where it follows the source clip.
    """
    offer = model.providers.get(provider_id)
    if offer is None or offer.usd is None:
        return None
    number = inputs.get("generation_output_number", 1)
    rate = _tier(offer.usd, inputs) * MICROS_PER_CREDIT * number
    if model.pricing_unit == "generation":
        return round_micros(rate)
    return round_micros(rate * (Decimal(_seconds(model, inputs)) if seconds is None else Decimal(seconds)))


def _tier(price: Price, inputs: Mapping[str, Any]) -> Decimal:
    """The figure for these inputs; the dearest where none is theirs."""
    if not isinstance(price, Mapping):
        return price
    resolution, quality = inputs.get("generation_resolution", ""), inputs.get("generation_quality", "")
    sound = "audio" if inputs.get("generation_generate_audio") else "noaudio"
    keys = (f"{resolution}_{sound}", resolution, quality, sound)
    return next((price[key] for key in keys if key in price), max(price.values()))


def _quote(model: Model, inputs: Mapping[str, Any]) -> Quote:
    number = inputs.get("generation_output_number", 1)
    rate, resolution = _rate(model, inputs)
    rate_micro = rate * MICROS_PER_CREDIT
    if model.pricing_unit == "generation":
        return Quote(round_micros(rate_micro * number), None, None, resolution)
    seconds = _seconds(model, inputs)
    return Quote(round_micros(rate_micro * seconds * number), rate_micro, seconds, resolution)


def _rate(model: Model, inputs: Mapping[str, Any]) -> tuple[Decimal, str | None]:
    """Credits per output or second, and the resolution where the rate depends on it."""
    tiers = model.pricing_tiers
    if tiers:
        resolution = inputs.get("generation_resolution", "")
        if resolution in tiers:
            return tiers[resolution], resolution
        quality = inputs.get("generation_quality", "")
        return tiers[quality] if quality in tiers else max(tiers.values()), None
    pricing = model.pricing
    if not isinstance(pricing, Mapping):
        assert pricing is not None
        return pricing, None
    resolution = inputs.get("generation_resolution", "")
    sound = "audio" if inputs.get("generation_generate_audio") else "noaudio"
    for key in (f"{resolution}_{sound}", resolution, sound):
        if key in pricing:
            return pricing[key], None if key == sound else resolution
    return max(pricing.values()), None


def _seconds(model: Model, inputs: Mapping[str, Any]) -> int:
    duration: int | None = inputs.get("generation_duration")
    if duration is None:
        if model.max_seconds is None:
            raise ValueError(f"{model.identifier} has neither durations nor max_seconds")
        return model.max_seconds
    frames: int | None = inputs.get("generation_frames")
    if frames is None:
        return duration
    # A frame count overrides the duration at the provider, so the longer of the two is priced.
    rate = inputs.get("generation_fps") or _FRAMES_PER_SECOND
    return max(duration, -(-frames // rate))
