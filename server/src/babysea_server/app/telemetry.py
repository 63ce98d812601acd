"""What a process tells its operator: its registry of metrics, its health, and the application that serves both."""

import asyncio
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from babysea_server import __version__
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end
from babysea_server.settings import Settings
from babysea_server.telemetry.exposition import Exposition
from babysea_server.telemetry.health import HealthApp, Readiness
from babysea_server.telemetry.lag import watch_lag
from babysea_server.telemetry.metrics import (
    Process,
    ProcessMetrics,
    new_registry,
)

#: How far from `metrics_port` each kind of process listens, so that they can share a machine and its settings.
_PORTS: Mapping[Process, int] = {"api": 0, "worker": 1, "console": 2}


class Telemetry:
    """Metrics and health of one process.

    Args:
        dsns: connection string of each region's database.
        draining: whether the process is about to end.
    """

    def __init__(
        self,
        process: Process,
        settings: Settings,
        dsns: Mapping[str, str],
        clock: Clock,
        draining: Callable[[], bool],
    ) -> None:
        self.registry: CollectorRegistry = new_registry()
        self.counting = settings.metrics_port > 0
        """Whether anybody can ask; else nothing is counted."""
        self.port = settings.metrics_port + _PORTS[process] if self.counting else None
        self.host = settings.metrics_host
        self.readiness = Readiness(dsns, clock, draining)
        self.health = HealthApp(self.readiness, detailed=False)
        self.app = Exposition(self.registry, self.readiness)
        self._metrics = ProcessMetrics.build(self.registry, process, __version__)
        self._clock = clock
        self._lag: asyncio.Task[None] | None = None

    def show_pool(self, region: str, database: Database) -> None:
        """Tell how a pool is used, from now on."""
        labels = (region, database.name)
        metrics = self._metrics
        metrics.connections_max.labels(*labels).set(database.size)
        metrics.connections.labels(*labels, "used").set_function(lambda: database.usage.used)
        metrics.connections.labels(*labels, "idle").set_function(lambda: database.usage.idle)
        metrics.connections_awaited.labels(*labels).set_function(lambda: database.usage.waiting)

    async def open(self) -> None:
        """Begin; from now on the process may be ready."""
        await self.readiness.open()
        if self.counting:
            self._lag = asyncio.create_task(
                watch_lag(self._metrics.loop_lag.observe, self._clock), name="lag"
            )

    async def close(self) -> None:
        """End; from now on the process is not ready."""
        await end([self._lag])
        await self.readiness.close()
