"""A deliverer as a process of its own, to be killed: `python -m tests.webhooks.process <dsn> <lease_s>`."""

import asyncio
import signal
import sys

from tests.webhooks.conftest import KEY, ORIGIN

from babysea_server.db.pool import Database
from babysea_server.kit.clock import SystemClock
from babysea_server.outputs.links import LinkSigner
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.deliverer import Deliverer, DelivererSettings
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.sender import Sender


async def _run(dsn: str, lease_s: float) -> None:
    clock, stop = SystemClock(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    db, sender = Database(dsn, name="test-deliverer", size=4), Sender(clock, allow_private=True)
    await db.open()
    bodies = Bodies(LinkSigner(KEY, clock), ORIGIN, "us")
    settings = DelivererSettings(lease_s=lease_s, poll_s=0.05)
    deliverer = Deliverer(db, sender, SecretBox(KEY), bodies, clock, settings)
    deliverer.start()
    await stop.wait()
    await deliverer.stop()
    await sender.close()
    await db.close()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], float(sys.argv[2])))
