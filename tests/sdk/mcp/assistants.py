"""An assistant before the server: the protocol SDK's own client, over HTTP in this process and over stdio."""

import asyncio
import base64
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import uvicorn
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent
from tests.sdk.conftest import Live

from babysea import AsyncBabySea
from babysea.mcp._budget import Budget
from babysea.mcp._desk import Desk
from babysea.mcp._serving import build_server, http_app

IMAGE, VIDEO = "sandbox/image", "sandbox/video"
SLOW = "waves [sandbox:slow:600]"


@dataclass
class Answer:
    """What a tool answered."""

    raw: CallToolResult

    @property
    def text(self) -> str:
        first = self.raw.content[0]
        assert isinstance(first, TextContent)
        return first.text

    @property
    def data(self) -> dict[str, Any]:
        assert not self.raw.is_error, self.text
        data: dict[str, Any] = self.raw.structured_content
        return data

    @property
    def error(self) -> str:
        assert self.raw.is_error, self.text
        assert self.raw.structured_content is None
        assert "\n" not in self.text
        return self.text

    @property
    def pictures(self) -> list[bytes]:
        return [base64.b64decode(each.data) for each in self.raw.content if isinstance(each, ImageContent)]

    @property
    def links(self) -> list[ResourceLink]:
        return [each for each in self.raw.content if isinstance(each, ResourceLink)]


class Assistant:
    """Calls tools, and remembers the progress that it was told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.progress: list[tuple[float, str]] = []
        self.told = asyncio.Event()

    async def call(self, tool: str, **arguments: Any) -> Answer:
        return Answer(await self.client.call_tool(tool, arguments, progress_callback=self._hear))

    async def _hear(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, message or ""))
        self.told.set()


@asynccontextmanager
async def assisted(client: Client) -> AsyncIterator[Assistant]:
    """A connected assistant that knows the tools' schemas, so that every result is held against them."""
    async with client:
        await client.list_tools()
        yield Assistant(client)


class _Server(uvicorn.Server):
    """uvicorn that leaves the test process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    """An ASGI application with a life of its own, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="on", log_config=None, ws="none", timeout_graceful_shutdown=5)
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running


@asynccontextmanager
async def served(
    live: Live,
    *,
    key: str | None = None,
    max_credits: float | None = None,
    read_only: bool = False,
    cancel_on_abort: bool = False,
    token: str | None = None,
    max_retries: int = 2,
) -> AsyncIterator[str]:
    """The server over HTTP on a free port; yields its URL."""
    client = AsyncBabySea(key or live.customer.key, base_url=live.base_url, max_retries=max_retries)
    desk = Desk(client, Budget.of(max_credits, client.get_generation), cancel_on_abort=cancel_on_abort)
    app = http_app(build_server(desk, read_only=read_only), token=token, names=())
    async with listening(app) as port:
        yield f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def over_http(live: Live, mode: str = "auto", **options: Any) -> AsyncIterator[Assistant]:
    """An assistant of a server of its own."""
    async with served(live, **options) as url, assisted(Client(url, mode=mode)) as assistant:
        yield assistant


@asynccontextmanager
async def over_stdio(live: Live, folder: Path, *options: str, mode: str = "auto") -> AsyncIterator[Assistant]:
    """An assistant that started the server as a process; what that says on stderr is in `folder/stderr`."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "babysea.mcp", *options],
        env={"BABYSEA_API_KEY": live.customer.key, "BABYSEA_BASE_URL": live.base_url},
        cwd=folder,
    )
    with (folder / "stderr").open("w") as errors:
        assert isinstance(errors, TextIOWrapper)
        async with assisted(Client(stdio_client(parameters, errlog=errors), mode=mode)) as assistant:
            yield assistant
