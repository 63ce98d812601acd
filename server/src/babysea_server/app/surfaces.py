"""What a process answers beside `/v1`, counted by what it is."""

from starlette.types import Message, Send

from babysea_server.accounts.stripe_route import PATH as STRIPE_PATH
from babysea_server.console.navigation import ROOT as CONSOLE_ROOT
from babysea_server.contract.publish import Publisher
from babysea_server.outputs.routes import PREFIX as FILES_PREFIX
from babysea_server.providers.callbacks import PREFIX as CALLBACKS_PREFIX
from babysea_server.telemetry.health import HealthApp
from babysea_server.telemetry.metrics import ApiMetrics, status_class


def counted(path: str, send: Send, metrics: ApiMetrics) -> Send:
    """A `send` that counts the answer, unless the gateway does that itself."""
    if path.startswith("/v1/"):
        return send
    surface = _surface(path)
    if surface is None:
        return send

    async def count(message: Message) -> None:
        if message["type"] == "http.response.start":
            metrics.responses.labels(surface, status_class(message["status"])).inc()
        await send(message)

    return count


def _surface(path: str) -> str | None:
    for prefix, surface in (
        (FILES_PREFIX, "files"),
        (CALLBACKS_PREFIX, "callbacks"),
        (CONSOLE_ROOT, "console"),
        (STRIPE_PATH, "payments"),
    ):
        if path.startswith(prefix):
            return surface
    if path in HealthApp.PATHS:
        return "health"
    return "documents" if path == "/" or path in Publisher.PATHS else None
