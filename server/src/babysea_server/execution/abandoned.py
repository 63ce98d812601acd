"""Attempts that nobody will end: their generation is final, and whoever ended it died before the provider heard."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database
from babysea_server.execution import store
from babysea_server.providers.base import Accepted, Job
from babysea_server.providers.runner import Runner

_log = structlog.get_logger(__name__)

#: Longer than a cancellation, and a run that hears of it, take to end the attempt themselves.
_OLDER_THAN_S = 60.0
_AT_ONCE = 20


async def end_abandoned_attempts(db: Database, runner: Runner, catalog: Catalog) -> None:
    """End them as discarded, in bounded steps, and have their providers stop, without waiting for more than that.

    One that died while it was being bought has no upstream id: its provider is asked whether it has the job.
    """
    while rows := await store.end_abandoned(db, older_than_s=_OLDER_THAN_S, limit=_AT_ONCE):
        _log.warning("abandoned_attempts_ended", attempts=len(rows))
        asked = [_stop(row, runner, catalog) for row in rows if row["model"] in catalog.all_models]
        await asyncio.gather(*asked)


async def _stop(row: Mapping[str, Any], runner: Runner, catalog: Catalog) -> None:
    model = catalog.all_models[row["model"]]
    job = Job(row["id"], row["provider"], model, row["inputs"] or {}, opened_at=row["submitted_at"])
    if row["upstream_id"] is not None:
        await runner.cancel(job, Accepted(row["upstream_id"], row["upstream"]))
    elif isinstance(found := await runner.reconcile(job), Accepted):
        await runner.cancel(job, found)
