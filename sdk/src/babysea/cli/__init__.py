"""The command line `babysea`, which comes with the extra `cli`."""

import sys
from importlib.util import find_spec

_EXTRA = ("typer", "rich", "platformdirs")


def main() -> None:
    """Entry point."""
    if any(find_spec(name) is None for name in _EXTRA):
        sys.stderr.write("error: the command line is an extra of this package: pip install 'babysea[cli]'\n")
        sys.exit(1)
    from babysea.cli.app import run

    sys.exit(run(sys.argv[1:]))
