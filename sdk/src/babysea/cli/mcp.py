"""`babysea mcp`: the server of the Model Context Protocol, which comes with the extra `mcp`."""

import logging
import sys
from typing import Annotated, Literal

import typer

from babysea.cli.session import Session, command


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(mcp)


def mcp(
    session: Session,
    transport: Annotated[
        Literal["stdio", "http"], typer.Option("--transport", help="http is Streamable HTTP under /mcp.")
    ] = "stdio",
    host: Annotated[str, typer.Option("--host", help="Where to listen (http).")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Where to listen (http); 0 takes a free one.")] = 8765,
    max_credits: Annotated[
        float | None, typer.Option("--max-credits", min=0, help="What it may spend in all.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Leave out the tools that generate and cancel.")
    ] = False,
    cancel_on_abort: Annotated[
        bool, typer.Option("--cancel-on-abort", help="Cancel what a canceled tool call started.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="BABYSEA_MCP_TOKEN", help="Bearer token of HTTP clients."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A name by which HTTP clients reach it; repeatable."),
    ] = None,
) -> None:
    """Serve an assistant tools for pictures and clips."""
    # Imported here: it is an extra of its own.
    from babysea.mcp import serve

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    found = session.connection()
    serve(
        {"api_key": found.api_key, "base_url": found.base_url, "region": found.region},
        transport=transport,
        host=host,
        port=port,
        max_credits=max_credits,
        read_only=read_only,
        cancel_on_abort=cancel_on_abort,
        token=token,
        allowed_hosts=allowed_host or (),
    )
