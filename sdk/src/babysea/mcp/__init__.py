"""The MCP server: tools by which an assistant makes pictures and videos. Needs the extra `mcp`."""

from babysea.mcp._main import main, serve

__all__ = ["main", "serve"]
