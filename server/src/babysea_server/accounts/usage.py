"""An account's usage: its roll-ups of the last days, added up."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from babysea_server.accounts import store
from babysea_server.accounts.wire import UsageData, UsageEndpoint, UsageProvider
from babysea_server.db.pool import Database
from babysea_server.kit import money

#: What the endpoint templates of generate begin with.
GENERATE = "POST /v1/generate/"


class _Answers(msgspec.Struct):
    """Answers of one endpoint that ended the same way."""

    endpoint: str
    status_class: int
    """2, 4 or 5."""
    error_code: str
    requests: int
    replays: int


class _Attempts(msgspec.Struct):
    """Attempts at one provider. Costs in micro-credits."""

    provider: str
    submissions: int
    used: int
    cancelled: int
    discarded: int
    failed: int
    estimated_cost: int
    wasted_cost: int


async def usage(db: Database, account_id: UUID, *, days: int) -> UsageData | None:
    """The account's last `days` days in UTC, today included; None for an unknown account."""
    row = await store.usage(db, account_id, days=days)
    if row is None:
        return None
    answers = msgspec.convert(row["endpoints"], list[_Answers])
    attempts = sorted(msgspec.convert(row["providers"], list[_Attempts]), key=lambda each: each.provider)
    classes = _by_class(answers)
    return UsageData(
        account_id=account_id,
        usage_period_days=days,
        usage_credit_balance=money.credits(row["credit_balance"]),
        usage_total_requests=sum(classes.values()),
        usage_total_success=classes[2],
        usage_total_client_errors=classes[4],
        usage_total_server_errors=classes[5],
        usage_total_generations=sum(
            each.requests - each.replays
            for each in answers
            if each.status_class == 2 and each.endpoint.startswith(GENERATE)
        ),
        usage_total_provider_submissions=sum(each.submissions for each in attempts),
        usage_total_estimated_cost=money.credits(sum(each.estimated_cost for each in attempts)),
        usage_endpoints=_endpoints(answers),
        usage_providers=[_provider(each) for each in attempts],
    )


def _by_class(answers: Sequence[_Answers]) -> Mapping[int, int]:
    """Requests by the class of their status."""
    classes: dict[int, int] = defaultdict(int)
    for each in answers:
        classes[each.status_class] += each.requests
    return classes


def _endpoints(answers: Sequence[_Answers]) -> list[UsageEndpoint]:
    by_endpoint: dict[str, list[_Answers]] = defaultdict(list)
    for each in answers:
        by_endpoint[each.endpoint].append(each)
    return [_endpoint(name, by_endpoint[name]) for name in sorted(by_endpoint)]


def _endpoint(name: str, answers: Sequence[_Answers]) -> UsageEndpoint:
    classes = _by_class(answers)
    codes: dict[str, int] = defaultdict(int)
    for each in answers:
        if each.error_code:
            codes[each.error_code] += each.requests
    return UsageEndpoint(
        endpoint=name,
        total_requests=sum(classes.values()),
        success_count=classes[2],
        client_error_count=classes[4],
        server_error_count=classes[5],
        error_codes=dict(sorted(codes.items())),
    )


def _provider(attempts: _Attempts) -> UsageProvider:
    return UsageProvider(
        provider=attempts.provider,
        total_submissions=attempts.submissions,
        used_count=attempts.used,
        cancelled_count=attempts.cancelled,
        discarded_count=attempts.discarded,
        failed_count=attempts.failed,
        total_estimated_cost=money.credits(attempts.estimated_cost),
        wasted_estimated_cost=money.credits(attempts.wasted_cost),
    )
