"""What a process tells its operator: its metrics, its health, the application that serves both, and its traces."""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from babysea_server import __version__
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end
from babysea_server.settings import Settings, SettingsError
from babysea_server.telemetry.exposition import Exposition
from babysea_server.telemetry.health import HealthApp, Readiness
from babysea_server.telemetry.lag import watch_lag
from babysea_server.telemetry.metrics import (
    Process,
    ProcessMetrics,
    new_registry,
)
from babysea_server.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from babysea_server.telemetry.tracing_otlp import OtlpTracer

#: How far from `metrics_port` each kind of process listens, so that they can share a machine and its settings.
_PORTS: Mapping[Process, int] = {"api": 0, "worker": 1, "console": 2}
#: Of the ways to a collector, the one that is spoken here.
_PROTOCOL = "http/protobuf"


class Telemetry:
    """Metrics, health and traces of one process.

    Args:
        dsns: connection string of each region's database.
        draining: whether the process is about to end.

    Raises:
        SettingsError: traces are asked for that cannot be sent.
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
        self._tracer = _tracer(settings, process)
        self.tracing = (
            None if self._tracer is None else Tracing(self._tracer, clock, sample=settings.tracing_sample)
        )
        """What everything that traces is made from; None where nobody asked for traces."""
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
        if self._tracer is not None:
            await self._tracer.close()


def _tracer(settings: Settings, process: Process) -> "OtlpTracer | None":
    if settings.tracing_endpoint is None:
        return None
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(variable, _PROTOCOL) != _PROTOCOL:
            raise SettingsError(f"{variable}: traces are sent over {_PROTOCOL} alone")
    try:
        # Here: the extra need not be installed, and takes time to load.
        from babysea_server.telemetry.tracing_otlp import OtlpTracer
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"tracing_endpoint: {error.name} is not installed; pip install 'babysea-server[tracing]'"
        ) from error
    return OtlpTracer(settings.tracing_endpoint, process, __version__)
