"""The `babysea-server` command."""

from babysea_server.cli.main import main

__all__ = ["main"]
