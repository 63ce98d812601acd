"""The tools behind the protocol, over stdio and HTTP."""

import logging
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as wire
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from starlette.types import ASGIApp

from babysea import BabySeaError, __version__
from babysea.mcp._budget import BudgetExceededError
from babysea.mcp._desk import Desk
from babysea.mcp._door import Door
from babysea.mcp._problems import explain, misused
from babysea.mcp._tools import TOOLS, Tool

_log = logging.getLogger(__name__)

_BODY_MAX_BYTES = 1024**2
_SESSIONS_MAX = 100
_DRAIN_S = 5
_INSTRUCTIONS = (
    "BabySea generates pictures and videos with many models. Find one with list_models, read get_model, tell the user "
    "what it costs when that is more than a few cents, then call generate. Show the user the links of videos."
)


def build_server(desk: Desk, *, read_only: bool = False) -> Server[Any]:
    """The protocol's server over a desk, whose client it closes in the end."""
    tools = {tool.name: tool for tool in TOOLS if not (read_only and tool.changes)}
    listed = [tool.described() for tool in tools.values()]

    async def list_tools(
        _context: ServerRequestContext[Any], _params: wire.PaginatedRequestParams | None
    ) -> wire.ListToolsResult:
        return wire.ListToolsResult(tools=listed)

    async def call_tool(
        context: ServerRequestContext[Any], params: wire.CallToolRequestParams
    ) -> wire.CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            raise MCPError(wire.INVALID_PARAMS, f"There is no tool {params.name}.")
        return await _run(desk, tool, params.arguments or {}, context)

    @asynccontextmanager
    async def lifespan(_server: Server[Any]) -> AsyncIterator[None]:
        async with desk.client:
            yield

    return Server(
        "babysea",
        version=__version__,
        title="BabySea",
        instructions=_INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def _run(
    desk: Desk, tool: Tool, arguments: dict[str, Any], context: ServerRequestContext[Any]
) -> wire.CallToolResult:
    async def report(passed: float, sentence: str) -> None:
        await context.session.report_progress(passed, None, sentence)

    try:
        reply = await tool.run(desk, tool.arguments.model_validate(arguments), report)
    except ValidationError as error:
        return _failed(misused(tool.name, error))
    except BabySeaError as error:
        return _failed(explain(error))
    except BudgetExceededError as error:
        return _failed(str(error))
    except Exception:
        # Whatever is in it stays here: only what was written for an assistant is told to one.
        _log.exception("%s failed", tool.name)
        return _failed(
            f"{tool.name} failed for a reason that this server did not expect; its log tells more."
        )
    structured = reply.result.model_dump(mode="json", exclude_none=True)
    text = reply.result.model_dump_json(exclude_none=True)
    content = [wire.TextContent(type="text", text=text), *reply.content]
    return wire.CallToolResult(content=content, structured_content=structured)


def _failed(sentence: str) -> wire.CallToolResult:
    return wire.CallToolResult(content=[wire.TextContent(type="text", text=sentence)], is_error=True)


def http_app(server: Server[Any], *, token: str | None, names: Sequence[str]) -> ASGIApp:
    """Streamable HTTP under `/mcp`, behind a door that checks Host, Origin and token."""
    app = server.streamable_http_app(
        max_request_body_size=_BODY_MAX_BYTES,
        max_sessions=_SESSIONS_MAX,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=False
        ),  # the door does it
    )
    return Door(app, token=token, names=names)


def serve_stdio(desk: Desk, *, read_only: bool) -> None:
    """Serve one client until stdin ends."""
    server = build_server(desk, read_only=read_only)

    async def run() -> None:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    anyio.run(run)


def serve_http(
    desk: Desk, *, read_only: bool, host: str, port: int, token: str | None, names: Sequence[str]
) -> None:
    """Serve any number of clients until SIGINT or SIGTERM; the address is written to stderr.

    Raises:
        OSError: the address cannot be listened on.
    """
    app = http_app(build_server(desk, read_only=read_only), token=token, names=names)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        shown = f"[{host}]" if ":" in host else host
        print(f"babysea mcp: http://{shown}:{listener.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_S,
        )
        uvicorn.Server(config).run(sockets=[listener])
