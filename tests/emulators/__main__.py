"""Run one emulator: `python -m tests.emulators replicate --port 9001`; prints how to point a server at it."""

import argparse
import asyncio
import shlex
import sys

from tests.emulators.all import EMULATORS
from tests.emulators.kit import running


async def _serve(provider: str, port: int) -> None:
    async with running(EMULATORS[provider](), port=port) as emulator:
        sys.stdout.write(f"{provider} is emulated on {emulator.origin}. For a server beside it:\n")
        for setting, value in emulator.settings().items():
            if setting != "options":
                variable = f"BABYSEA_PROVIDER_{provider.upper()}_{setting.upper()}"
                text = "true" if value is True else str(value)
                sys.stdout.write(f"  export {variable}={shlex.quote(text)}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulators", description=__doc__)
    parser.add_argument("provider", choices=sorted(EMULATORS))
    parser.add_argument("--port", type=int, default=9001)
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.provider, arguments.port))
    except KeyboardInterrupt:
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
