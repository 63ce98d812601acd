"""What systemd is told of a service of `Type=notify`, after sd_notify(3); nothing where nobody asks."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import structlog

_log = structlog.get_logger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"
#: How systemd says where and how often; children of a service are none, and do not get them.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def notify(state: str) -> None:
    """Tell the manager of this service."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # of the abstract name space
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.setblocking(False)
        try:
            way.sendto(state.encode(), address)
        except OSError as error:
            _log.warning("systemd_not_told", state=state, error=str(error))


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    """Say three times in each `WatchdogSec` that the event loop turns; who says nothing is killed and started anew."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    if not (meant and limit.isascii() and limit.isdigit() and int(limit)):
        yield
        return
    every_s = int(limit) / 1e6 / 3

    async def tell() -> None:
        while True:
            notify(ALIVE)
            await asyncio.sleep(every_s)

    telling = asyncio.create_task(tell(), name="watchdog")
    try:
        yield
    finally:
        telling.cancel()
