"""The body of a delivery: the same bytes in every attempt, whoever makes it."""

from datetime import timedelta
from typing import Any

from babysea_server.kit import json
from babysea_server.kit.clock import rfc3339
from babysea_server.outputs.links import LinkSigner
from babysea_server.webhooks.schedule import LIFE_MAX_S
from babysea_server.webhooks.types import DueDelivery

_FILES = "generation_output_file"
#: PostgreSQL keeps members in an order of its own; these come as the contract lists them, others behind them.
_ORDER = {
    name: place
    for place, name in enumerate(
        (
            "account_id",
            "model_identifier",
            "generation_id",
            "generation_status",
            "generation_provider_initialize",
            "generation_provider_used",
            "generation_prediction_id",
            _FILES,
            "generation_error",
            "generation_error_code",
            "credits_refunded",
            "current_balance",
            "thresholds_crossed",
        )
    )
}


class Bodies:
    """Makes the bodies of one region's deliveries.

    Links to output files hold from the delivery's creation until after its last possible attempt, so they are
    part of what never changes.

    Args:
        signer: of the links.
        origin: scheme and authority under which the region's files are read.
    """

    def __init__(self, signer: LinkSigner, origin: str, region: str) -> None:
        self._signer = signer
        self._origin = origin
        self._region = region

    def render(self, delivery: DueDelivery) -> bytes:
        """The JSON body of a delivery."""
        return json.dumps(
            {
                "webhook_event": delivery.event,
                "webhook_timestamp": rfc3339(delivery.happened_at),
                "webhook_delivery_id": str(delivery.id),
                "webhook_data": self._data(delivery),
            }
        )

    def _data(self, delivery: DueDelivery) -> dict[str, Any]:
        data = dict(
            sorted(delivery.data.items(), key=lambda item: (_ORDER.get(item[0], len(_ORDER)), item[0]))
        )
        if _FILES in data:
            until = delivery.created_at + timedelta(seconds=LIFE_MAX_S)
            data[_FILES] = [
                self._signer.sign_until(self._origin, self._region, key, until) for key in data[_FILES]
            ]
        return data
