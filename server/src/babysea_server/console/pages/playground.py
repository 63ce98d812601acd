"""The page Playground."""

from collections.abc import Sequence

from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route


def routes() -> Sequence[Route]:
    """The routes of this page."""
    return [Route("GET", "/playground", Action.PLAYGROUND_USE, _show)]


async def _show(page: PageRequest) -> Response:
    return await page.render("stub.html", title="Playground")
