"""`POST /stripe/events`: the payment service says what happened."""

import asyncio
from collections.abc import Mapping

import asyncpg
import structlog
from starlette.types import Receive, Scope, Send

from babysea_server.accounts.billing import Billing
from babysea_server.accounts.stripe_api import PaymentsUnavailableError
from babysea_server.accounts.stripe_events import BadEventError, Event, read_event
from babysea_server.db.pool import DatabaseUnavailableError, fault_of
from babysea_server.kit.asgi import read_body, send_json

PATH = "/stripe/events"

_log = structlog.get_logger(__name__)

_BODY_MAX = 1024 * 1024
#: For receiving one.
_DEADLINE_S = 10.0
#: Each holds a connection to the database while it is carried out.
_AT_ONCE = 2
_WAITING_MAX = 50


class StripeEvents:
    """The ASGI application of the events of all regions.

    Whatever is not signed with the endpoint's secret is refused. What cannot be carried out now is answered 503, and
    sent again by Stripe for days; what is not about an account of this process's regions is taken and passed over.

    Args:
        secret: of the endpoint, `whsec_...`.
    """

    def __init__(self, regions: Mapping[str, Billing], secret: str) -> None:
        self._regions = regions
        self._secret = secret
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            return await _answer(send, 405, "events are sent with POST", (b"allow", b"POST"))
        signatures = [value for name, value in scope["headers"] if name == b"stripe-signature"]
        if len(signatures) != 1:
            return await _answer(send, 400, "an event has one signature")
        try:
            async with asyncio.timeout(_DEADLINE_S):
                body = await read_body(receive, _BODY_MAX)
        except TimeoutError:
            return await _answer(send, 408, "it took too long; send it again")
        if body is None:
            return await _answer(send, 413, f"an event has at most {_BODY_MAX} bytes")
        try:
            event = read_event(body, signatures[0].decode("latin-1"), self._secret)
        except BadEventError as error:
            _log.warning("stripe_event_refused", reason=str(error))
            return await _answer(send, 400, "the signature does not match")
        if self._waiting >= _WAITING_MAX:
            return await _answer(send, 503, "too many at once; send it again")
        return await _answer(send, *await self._carry_out(event))

    async def _carry_out(self, event: Event) -> tuple[int, str]:
        self._waiting += 1
        try:
            async with self._turn:
                for billing in self._regions.values():
                    if await billing.apply(event):
                        return 200, "thank you"
        except BadEventError as error:
            _log.error("stripe_event_not_understood", event_id=event.id, type=event.type, reason=str(error))
            return 422, "the event is not understood"
        except (PaymentsUnavailableError, DatabaseUnavailableError, asyncpg.PostgresError) as error:
            reason = str(error) if isinstance(error, PaymentsUnavailableError) else fault_of(error)
            _log.warning("stripe_event_put_off", event_id=event.id, type=event.type, reason=reason)
            return 503, "it cannot be carried out now; send it again"
        finally:
            self._waiting -= 1
        _log.info("stripe_event_passed_over", event_id=event.id, type=event.type)
        return 200, "nothing to do"


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    await send_json(send, status, {"message": text}, (b"cache-control", b"no-store"), *headers)
