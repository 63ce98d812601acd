"""The `babysea-server` command."""


def main() -> None:
    """Entry point."""
