"""The operator's markup: by what the catalog's prices are multiplied."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from babysea_server.catalog.types import Price

_ONE = Decimal(1)


class Markup(msgspec.Struct, frozen=True):
    """Factors on the price: `1.2` adds a fifth.

    A model's own factor beats everything. Otherwise the largest factor among its providers holds (one
    without its own counts with the default), so that the price does not depend on who serves the request.
    """

    default: Decimal = _ONE
    providers: Mapping[str, Decimal] = {}
    models: Mapping[str, Decimal] = {}

    def factor(self, identifier: str, provider_ids: Iterable[str]) -> Decimal:
        """The factor of one model."""
        own = self.models.get(identifier)
        if own is not None:
            return own
        return max((self.providers.get(name, self.default) for name in provider_ids), default=self.default)


def multiplied(price: Price | None, factor: Decimal) -> Price | None:
    """The price with the factor on every figure."""
    if price is None or factor == _ONE:
        return price
    if isinstance(price, Mapping):
        return {key: value * factor for key, value in price.items()}
    return price * factor
