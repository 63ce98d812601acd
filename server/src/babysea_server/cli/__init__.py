"""The `babysea-server` command."""

import gc
import sys
from importlib import import_module

#: New objects after which garbage is looked for while a process starts, when nearly all that is made stays.
_NEW_OBJECTS = 100_000


def main() -> None:
    """Entry point."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    _import_structlog()
    from babysea_server.cli.main import main as run

    run()


def _import_structlog() -> None:
    """Without Rich, which it takes in wherever that is installed, to draw tracebacks as we never have it draw them.

    A tenth of all that a process loads when it starts: Rich itself, Pygments and attrs.
    """
    sys.modules["rich"] = None  # type: ignore[assignment]  # so an import of it fails, as if it were not there
    try:
        import_module("structlog")
    finally:
        del sys.modules["rich"]
