"""`POST /callbacks/{provider}/{token}`: a provider says that a job has ended, and its attempt is due at once.

That is all that follows: whoever waits for the attempt asks the provider itself. So callbacks may come twice, in any
order, too early or never, and what they carry decides nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from uuid import UUID

import structlog
from starlette.types import Receive, Scope, Send

from babysea_server.kit.asgi import read_body, send_json
from babysea_server.providers.callbacks import PREFIX, CallbackAddresses, CallbackVerifier

_log = structlog.get_logger(__name__)

_BODY_MAX = 1024 * 1024
_DEADLINE_S = 10.0


class Callbacks:
    """One region's callbacks.

    Args:
        announce: the attempt is due; told to whoever carries it.
    """

    def __init__(
        self,
        addresses: CallbackAddresses,
        verifier: CallbackVerifier,
        announce: Callable[[UUID], None],
    ) -> None:
        self._addresses = addresses
        self._verifier = verifier
        self._announce = announce

    def attempt(self, provider_id: str, token: str) -> UUID | None:
        """The attempt that the address is about, if it is one of this region's."""
        return self._addresses.attempt(provider_id, token)

    async def receive(
        self, provider_id: str, attempt_id: UUID, headers: Mapping[str, str], body: bytes
    ) -> bool:
        """Take a callback; False where it is not the provider's own."""
        if not await self._verifier.verifies(provider_id, headers, body):
            _log.warning("callback_refused", provider=provider_id, attempt_id=str(attempt_id))
            return False
        self._announce(attempt_id)
        return True


class CallbacksApp:
    """The ASGI application of all regions' callbacks. An address that is not ours is a 404, whatever it carries."""

    def __init__(self, regions: Mapping[str, Callbacks]) -> None:
        self._regions = regions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider_id, _, token = scope["path"].removeprefix(PREFIX).partition("/")
        found = self._find(provider_id, token)
        if found is None:
            return await _answer(send, 404, "there is nothing at this address")
        if scope["method"] != "POST":
            return await _answer(send, 405, "callbacks are sent with POST", (b"allow", b"POST"))
        callbacks, attempt_id = found
        try:
            async with asyncio.timeout(_DEADLINE_S):
                body = await read_body(receive, _BODY_MAX)
                if body is None:
                    return await _answer(send, 413, f"a callback has at most {_BODY_MAX} bytes")
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in scope["headers"]
                }
                own = await callbacks.receive(provider_id, attempt_id, headers, body)
        except TimeoutError:
            return await _answer(send, 503, "it took too long; send it again")
        if own:
            return await _answer(send, 200, "thank you")
        return await _answer(send, 401, "the signature does not match")

    def _find(self, provider_id: str, token: str) -> tuple[Callbacks, UUID] | None:
        for callbacks in self._regions.values():
            if (attempt_id := callbacks.attempt(provider_id, token)) is not None:
                return callbacks, attempt_id
        return None


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    await send_json(send, status, {"message": text}, *headers)
