"""`/metrics`, and health with its reasons: what is served on the listener for the operator."""

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from babysea_server.telemetry.health import HealthApp, Readiness

METRICS = "/metrics"
_METHODS = frozenset({"GET", "HEAD"})


class Exposition:
    """The HTTP application of the operator's listener."""

    def __init__(self, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._registry = registry
        self._health = HealthApp(readiness, detailed=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"metrics are served over HTTP, not {scope['type']}")
        path: str = scope["path"]
        if path not in HealthApp.PATHS and path != METRICS:
            await Response(status_code=404)(scope, receive, send)
        elif scope["method"] not in _METHODS:
            await Response(status_code=405, headers={"allow": "GET, HEAD"})(scope, receive, send)
        elif path == METRICS:
            await (await self._metrics(scope))(scope, receive, send)
        else:
            await self._health(scope, receive, send)

    async def _metrics(self, scope: Scope) -> Response:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        encode, content_type = choose_encoder(accepted.decode("latin-1"))
        # Thousands of series take tens of milliseconds to write: not on the loop that serves requests.
        text = await asyncio.to_thread(encode, self._registry)
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})
