"""The workers of one process, and everything that is done again and again beside them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from structlog.contextvars import bound_contextvars

from babysea_server.accounts import billing_store
from babysea_server.accounts.alerts import EVERY_S as ALERTS_EVERY_S
from babysea_server.accounts.alerts import AlertJob
from babysea_server.accounts.domains import EVERY_S as DOMAINS_EVERY_S
from babysea_server.accounts.domains import DomainJob
from babysea_server.accounts.mail import EVERY_S as MAIL_EVERY_S
from babysea_server.accounts.mail import MailJob, MailServer, mail_server
from babysea_server.accounts.service import RENEW_EVERY_S, Renewals
from babysea_server.app.registries import RegistryFactory, provider_registry
from babysea_server.app.selling import domain_site
from babysea_server.app.shared import (
    PROVIDER_FAILURES,
    Shared,
    provider_health,
    public_origin,
    together,
)
from babysea_server.app.telemetry import Telemetry
from babysea_server.db.pool import Database
from babysea_server.execution.periodic import every
from babysea_server.execution.run import first
from babysea_server.execution.turns import in_turn
from babysea_server.execution.worker import Worker, WorkerSettings
from babysea_server.generations import files, retention
from babysea_server.kit.tasks import end
from babysea_server.limits.counters import WINDOW_S
from babysea_server.limits.store import delete_old
from babysea_server.outputs.store import open_store
from babysea_server.providers.callbacks import CallbackAddresses
from babysea_server.providers.runner import Runner
from babysea_server.routing.breaker import Breaker
from babysea_server.routing.job import EVERY_S as RANKING_EVERY_S
from babysea_server.routing.job import RankingJob
from babysea_server.settings import Settings, SettingsError
from babysea_server.telemetry.metrics import RunMetrics, WorkerMetrics
from babysea_server.telemetry.partitions import EVERY_S as RETENTION_EVERY_S
from babysea_server.telemetry.partitions import Retention
from babysea_server.telemetry.state import EVERY_S as STATE_EVERY_S
from babysea_server.telemetry.state import State
from babysea_server.telemetry.tracing_generations import GenerationTraces
from babysea_server.telemetry.tracing_webhooks import DeliveryTraces
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.deliverer import Deliverer, DelivererSettings
from babysea_server.webhooks.retention import EVERY_S as WEBHOOK_RETENTION_EVERY_S
from babysea_server.webhooks.retention import WebhookRetention
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.sender import Sender

_log = structlog.get_logger(__name__)


class WorkerRegion:
    """The worker's side of one region."""

    def __init__(
        self,
        shared: Shared,
        region: str,
        dsn: str,
        registries: RegistryFactory,
        telemetry: Telemetry,
        metrics: WorkerMetrics,
    ) -> None:
        settings = shared.settings
        timeouts = {media: settings.attempt_timeout_s(media) for media in ("image", "video")}
        addresses = CallbackAddresses(shared.master_key, region, settings.callback_url)
        self.region = region
        self.db = Database(dsn, name="babysea-worker", size=settings.database_connections)
        self.runner = Runner(
            registries(settings, shared.catalog, self.db),
            shared.clock,
            submit_timeout_s=settings.submit_timeout_s,
            inline_timeout_s=timeouts,
        )
        health = provider_health(self.db, shared)
        store = open_store(settings.storage_url, settings.data_path, prefix=region)
        tracing = telemetry.tracing
        self.worker = Worker(
            self.db,
            self.runner,
            store,
            shared.catalog,
            shared.clock,
            WorkerSettings(
                concurrency=settings.worker_concurrency,
                lease_s=settings.worker_lease_s,
                poll_s=settings.worker_poll_s,
                attempt_timeout_s=timeouts,
            ),
            choose=Breaker(self.db, health, shared.clock).choose if settings.breaker_enabled else first,
            callback_url=addresses.url,
            watch=RunMetrics(metrics, region),
            traces=None if tracing is None else GenerationTraces(tracing, region),
        )
        self.sender = Sender(shared.clock, allow_private=settings.webhooks_allow_private)
        self.deliverer = Deliverer(
            self.db,
            self.sender,
            SecretBox(shared.master_key, old=shared.other_master_key),
            Bodies(shared.signer, public_origin(settings, region), region),
            shared.clock,
            DelivererSettings(per_endpoint=settings.webhooks_per_endpoint, lease_s=settings.worker_lease_s),
            observe=metrics.delivery(region),
            traces=None if tracing is None else DeliveryTraces(tracing, region),
        )
        self.webhook_retention = WebhookRetention(self.db, keep_days=settings.webhooks_keep_days)
        self.alerts = AlertJob(self.db)
        self.domains = DomainJob(self.db, domain_site(settings, region))
        self.mail = MailJob(self.db, _mail_server(settings))
        self.ranking = RankingJob(
            self.db, region, shared.clock, failures=PROVIDER_FAILURES, redis_url=settings.redis_url
        )
        self.log_retention = Retention(self.db, keep_days=settings.request_log_days)
        self.renewals = Renewals(self.db, shared.plans)
        self.plan_retention = retention.PlanRetention(self.db, shared.plans)
        self.file_deletions = files.FileDeletions(self.db, store)
        self.orphan_sweep = files.OrphanSweep(self.db, store)
        self.state = State(self.db, region, metrics, health.statuses, shared.clock)
        self._counting = telemetry.counting
        telemetry.show_pool(region, self.db)
        metrics.running.labels(region).set_function(lambda: self.worker.running)
        metrics.sending.labels(region).set_function(lambda: self.deliverer.sending)
        self._clock = shared.clock
        self._stop_s = settings.worker_stop_s
        self._allow_private = settings.webhooks_allow_private
        self._periodic: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Open the pool and start; everything that is begun here names the region in what it logs."""
        with bound_contextvars(region=self.region):
            await self._start()

    async def _start(self) -> None:
        if self._allow_private:
            _log.warning(
                "webhooks_allow_private", meaning="webhooks may go to private addresses; never in production"
            )
        await self.db.open()
        self.worker.start()
        self.deliverer.start()
        self._periodic = [
            self._in_turn("request-log", RETENTION_EVERY_S, self.log_retention.run),
            self._in_turn("window-counts", WINDOW_S, self._delete_old_counts),
            self._in_turn("webhook-retention", WEBHOOK_RETENTION_EVERY_S, self.webhook_retention.run),
            every("alerts", ALERTS_EVERY_S, self.alerts.run, self._clock),
            every("domains", DOMAINS_EVERY_S, self.domains.run, self._clock),
            self._in_turn("payment-events", billing_store.RETENTION_EVERY_S, self._delete_old_events),
            every("mail", MAIL_EVERY_S, self.mail.run, self._clock),
            every("rankings", RANKING_EVERY_S, self.ranking.run, self._clock),
            every("periods", RENEW_EVERY_S, self.renewals.run, self._clock),
            self._in_turn("plan-retention", retention.EVERY_S, self.plan_retention.walk),
            every("file-deletions", files.DELETIONS_EVERY_S, self.file_deletions.delete_due, self._clock),
            every("orphan-sweep", files.SWEEP_EVERY_S, self.orphan_sweep.sweep, self._clock),
        ]
        if self._counting:
            self._periodic.append(every("state", STATE_EVERY_S, self.state.read, self._clock))

    async def close(self) -> None:
        """Stop, giving back what is not done, and close."""
        await end(self._periodic)
        await together([self.worker.stop(within_s=self._stop_s), self.deliverer.stop(within_s=self._stop_s)])
        await self.runner.close()
        await self.sender.close()
        await self.ranking.close()
        await self.db.close()

    def _in_turn(self, work: str, seconds: float, do: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return every(work, seconds, in_turn(self.db, work, seconds, do), self._clock)

    async def _delete_old_counts(self) -> None:
        await delete_old(self.db, self._clock.now().timestamp())

    async def _delete_old_events(self) -> None:
        await billing_store.delete_old_events(self.db)


def _mail_server(settings: Settings) -> MailServer | None:
    try:
        return mail_server(settings.smtp_url, settings.smtp_from)
    except ValueError as error:
        raise SettingsError(f"smtp_url: {error}") from error


class Workers:
    """The workers of one process, one for each region."""

    def __init__(
        self,
        shared: Shared,
        dsns: Mapping[str, str],
        registries: RegistryFactory = provider_registry,
    ) -> None:
        self.draining = False
        """Set before the end: from then on the process tells that it is not ready."""
        self.telemetry = Telemetry("worker", shared.settings, dsns, shared.clock, lambda: self.draining)
        self.metrics = WorkerMetrics.build(self.telemetry.registry)
        self.regions = {
            region: WorkerRegion(shared, region, dsn, registries, self.telemetry, self.metrics)
            for region, dsn in dsns.items()
        }

    async def open(self) -> None:
        """Start all workers."""
        await together(region.open() for region in self.regions.values())
        await self.telemetry.open()

    async def close(self) -> None:
        """Stop all workers gracefully, all at once: the time to stop is the process's, not a region's."""
        self.draining = True
        await together(region.close() for region in self.regions.values())
        await self.telemetry.close()
