"""Retention: removing files, and later whole records, as the account's present plan says."""

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import msgspec
import structlog

from babysea_server.db.pool import Database
from babysea_server.generations import store
from babysea_server.kit.calls import Plan

_log = structlog.get_logger(__name__)

EVERY_S = 60.0
_ACCOUNTS_IN_STEP = 500
_FILES_IN_STEP = 500
_RECORDS_IN_STEP = 200
#: Of one plan and kind at a time, so that a large plan does not keep the others waiting.
_STEPS_MAX = 200
_BEGINNING = UUID(int=0)

Step = Callable[[UUID], Awaitable[tuple[UUID | None, int]]]
"""Looks at the accounts after this one; the last of them (None at the end), and how many generations it changed."""


class _Rule(msgspec.Struct, frozen=True):
    """One plan's limit."""

    kind: str
    plan: str
    step: Step
    step_max: int


class PlanRetention:
    """Walks the accounts of every plan that has a limit, in short transactions.

    Any number of workers may do it at once: each passes by what another holds. An account whose plan is not
    among `plans` keeps everything.
    """

    def __init__(self, db: Database, plans: Mapping[str, Plan]) -> None:
        self._rules = [rule for plan in plans.values() for rule in _rules(db, plan)]
        self._cursors: dict[tuple[str, str], UUID] = {}

    async def walk(self) -> None:
        """Take every walk to its end, or so far that the next call goes on there."""
        for rule in self._rules:
            removed = await self._walk(rule)
            if removed:
                _log.info("retention_removed", kind=rule.kind, plan=rule.plan, generations=removed)

    async def _walk(self, rule: _Rule) -> int:
        name = (rule.kind, rule.plan)
        cursor, removed = self._cursors.get(name, _BEGINNING), 0
        for _ in range(_STEPS_MAX):
            last, changed = await rule.step(cursor)
            removed += changed
            if last is None:
                cursor = _BEGINNING
                break
            if changed < rule.step_max:  # else there is more to do for the same accounts
                cursor = last
        self._cursors[name] = cursor
        return removed


def _rules(db: Database, plan: Plan) -> list[_Rule]:
    rules = []
    hours, days = plan.keep_files_hours, plan.keep_records_days
    if hours is not None:

        async def files(after: UUID, hours: int = hours) -> tuple[UUID | None, int]:
            return await store.remove_old_files(
                db, plan.name, after, hours, accounts=_ACCOUNTS_IN_STEP, limit=_FILES_IN_STEP
            )

        rules.append(_Rule("files", plan.name, files, _FILES_IN_STEP))
    if days is not None:

        async def records(after: UUID, days: int = days) -> tuple[UUID | None, int]:
            return await store.remove_old_records(
                db, plan.name, after, days, accounts=_ACCOUNTS_IN_STEP, limit=_RECORDS_IN_STEP
            )

        rules.append(_Rule("records", plan.name, records, _RECORDS_IN_STEP))
    return rules
