"""Receive webhooks: be sure who sent one, and read its event. It needs the standard library alone.

Example:
    event = verify(request.get_data(), request.headers, "whsec_...")
    match event.data:
        case GenerationCompleted(generation_id=id, generation_output_file=urls):
            ...
"""

from babysea._webhook_events import (
    Data,
    Event,
    GenerationCanceled,
    GenerationCompleted,
    GenerationData,
    GenerationFailed,
    GenerationStarted,
    LowBalance,
    Test,
    ThresholdCrossed,
    read_event,
)
from babysea._webhook_verify import WebhookVerificationError, verify

__all__ = [
    "Data",
    "Event",
    "GenerationCanceled",
    "GenerationCompleted",
    "GenerationData",
    "GenerationFailed",
    "GenerationStarted",
    "LowBalance",
    "Test",
    "ThresholdCrossed",
    "WebhookVerificationError",
    "read_event",
    "verify",
]
