"""The `babysea-server` command."""

import gc

#: New objects after which garbage is looked for while a process starts, when nearly all that is made stays.
_NEW_OBJECTS = 100_000


def main() -> None:
    """Entry point."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    from babysea_server.cli.main import main as run

    run()
