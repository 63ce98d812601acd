"""Starting the server: its options, and what is wrong with them before anything is served."""

import argparse
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from ipaddress import ip_address
from typing import Any, Literal

from babysea import AsyncBabySea, ConfigurationError

_TOKEN_MIN = 16


def serve(
    client_options: Mapping[str, Any] | None = None,
    *,
    transport: Literal["stdio", "http"] = "stdio",
    host: str = "127.0.0.1",
    port: int = 8765,
    max_credits: float | None = None,
    read_only: bool = False,
    cancel_on_abort: bool = False,
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve until stdin ends (stdio) or a signal comes (http).

    Args:
        client_options: what `babysea.AsyncBabySea` takes, such as `api_key` and `base_url`.
        transport: `stdio`, or `http` for Streamable HTTP under `/mcp`.
        port: 0 takes a free one; the address is written to stderr.
        max_credits: what this server's own generations may reserve in all; None is no limit but the balance.
        read_only: leave out the tools that generate and cancel.
        cancel_on_abort: cancel a generation whose tool call is canceled, instead of letting it go on.
        token: what an HTTP client has to send as its bearer token; required beyond loopback.
        allowed_hosts: names by which HTTP clients reach the server, besides loopback and IP addresses.

    Raises:
        ConfigurationError: the options make no sense together, there is no API key, or the extra is not installed.
        OSError: the address cannot be listened on.

    Example:
        serve({"api_key": key}, max_credits=1.0)
    """
    _check(transport, host, port, max_credits, token)
    try:
        import_module("mcp")
    except ModuleNotFoundError as error:
        raise ConfigurationError("the MCP server needs more packages: pip install 'babysea[mcp]'") from error
    from babysea.mcp._budget import Budget
    from babysea.mcp._desk import Desk
    from babysea.mcp._serving import serve_http, serve_stdio

    client = AsyncBabySea(**(client_options or {}))
    desk = Desk(client, Budget.of(max_credits, client.get_generation), cancel_on_abort=cancel_on_abort)
    if transport == "stdio":
        serve_stdio(desk, read_only=read_only)
    else:
        serve_http(desk, read_only=read_only, host=host, port=port, token=token, names=(host, *allowed_hosts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the command line and the environment say; returns the exit code.

    Example:
        sys.exit(main(["--max-credits", "1"]))
    """
    options = vars(_parser().parse_args(arguments))
    client_options = {name: options.pop(name) for name in ("base_url", "region")}
    token = os.environ.get("BABYSEA_MCP_TOKEN") or None
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        serve(client_options, **{**options, "token": options["token"] or token})
    except (ConfigurationError, OSError) as error:
        print(f"babysea mcp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="babysea mcp",
        description="Tools for an assistant: models, prices, pictures and videos. The key comes from BABYSEA_API_KEY.",
    )
    add = parser.add_argument
    add("--base-url", help="the server; else BABYSEA_BASE_URL, else http://localhost:8000")
    add("--region", choices=("us", "eu", "jp"), help="which of its regions")
    add("--transport", choices=("stdio", "http"), default="stdio", help="http is Streamable HTTP under /mcp")
    add("--host", default="127.0.0.1", help="where to listen (http)")
    add("--port", type=int, default=8765, help="where to listen (http); 0 takes a free one")
    add("--max-credits", type=float, help="what this server may reserve in all")
    add("--read-only", action="store_true", help="leave out the tools that generate and cancel")
    add(
        "--cancel-on-abort", action="store_true", help="cancel the generation of a tool call that is canceled"
    )
    add("--token", help="bearer token of HTTP clients; better BABYSEA_MCP_TOKEN, which no process list shows")
    add(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which HTTP clients reach the server; can be repeated",
    )
    return parser


def _check(transport: str, host: str, port: int, max_credits: float | None, token: str | None) -> None:
    if transport not in ("stdio", "http"):
        raise ConfigurationError("a transport is one of stdio, http")
    if max_credits is not None and not (math.isfinite(max_credits) and max_credits >= 0):
        raise ConfigurationError("max credits is a number that is not negative")
    if transport == "stdio":
        return
    if not 0 <= port <= 65535:
        raise ConfigurationError("a port is 0 to 65535")
    if token is not None and (len(token) < _TOKEN_MIN or not token.isascii() or not token.isprintable()):
        raise ConfigurationError(f"a token is at least {_TOKEN_MIN} printable ASCII characters")
    if token is None and not _is_loopback(host):
        raise ConfigurationError(
            f"listening on {host} opens the account to the network: set BABYSEA_MCP_TOKEN, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
