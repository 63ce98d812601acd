"""Metrics: what ran, what failed, how long it took and what it cost, over a day to a quarter of a year."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from markupsafe import Markup
from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console import charts, metrics_store, templating
from babysea_server.console.charts import Series
from babysea_server.console.metrics_store import Span
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.routing.statistics import Counts

PERIODS = (("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
_DEFAULT = "24h"
#: Rows of each table beneath the charts.
_ROWS_MAX = 20
_STATUSES = (("succeeded", "good"), ("failed", "bad"), ("canceled", "muted"))
_CLASSES = ((2, "2xx", "good"), (4, "4xx", "warn"), (5, "5xx", "bad"))
_SHARES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


class _Line(msgspec.Struct):
    """One row of a table: a name, and counts by what they are counted by."""

    name: str
    counts: dict[Any, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    latencies: Counts = msgspec.field(default_factory=Counts)
    charged: int = 0
    total_ms: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def share(self, *wanted: Any) -> str:
        """What part of them these are."""
        part = sum(self.counts[each] for each in wanted)
        return f"{part / self.total:.1%}" if self.total else "–"

    @property
    def mean(self) -> str:
        """How long one of them takes on average."""
        return duration(self.total_ms / 1000 / self.total) if self.total else "–"

    def quantile(self, share: float) -> str:
        """The time within which this share of them came."""
        return duration(self.latencies.quantile(share))


def routes() -> Sequence[Route]:
    """The routes of this page."""
    return [Route("GET", "/metrics", Action.METRICS_VIEW, _show)]


def chosen_period(page: PageRequest, default: str = _DEFAULT) -> str:
    """The period that the address names, or the usual one."""
    wanted = page.query.get("period", default)
    return wanted if wanted in dict(PERIODS) else default


def period_choices(page: PageRequest, path: str, current: str) -> tuple[Sequence[tuple[str, str]], str]:
    """Addresses of a page with each period and their labels, and the present one's address."""
    return [(page.url(path, period=name), label) for name, label in PERIODS], page.url(path, period=current)


def time_labels(span: Span) -> Sequence[str]:
    """What the slots are called on an axis, in UTC."""
    pattern = "%m-%d" if span.by_days else "%H:%M" if span.slots == 24 else "%m-%d %H:%M"
    return [moment.strftime(pattern) for moment in span.moments()]


def duration(seconds: float | None) -> str:
    """A time for people: `4.2 ms`, `310 ms`, `2.4 s`; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.{1 if seconds < 0.0095 else 0}f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


async def _show(page: PageRequest) -> Response:
    period = chosen_period(page)
    span = Span.of(period, page.now)
    account = page.account_id
    requests = await metrics_store.requests(page.reads, account, span)
    latencies = await metrics_store.latencies(page.reads, account, span)
    generations = await metrics_store.generations(page.reads, account, span)
    segments, current = period_choices(page, "/metrics", period)
    endpoints = _endpoints(requests, latencies)
    models = _lines(generations, "model", lambda row: row["model"])
    return await page.render(
        "metrics.html",
        segments=segments,
        current=current,
        period=dict(PERIODS)[period],
        standing=await metrics_store.standing(page.db, account),
        plan=page.region.plans.get(page.account.plan),
        asked=_Line("", {each: _total(requests, "status_class", each) for each, _, _ in _CLASSES}),
        ended=_Line("", {each: _total(generations, "status", each) for each, _ in _STATUSES}),
        charged=sum(each.charged for each in models),
        charts=_charts(span, requests, latencies, generations),
        models=models[:_ROWS_MAX],
        providers=_lines(generations, "provider", lambda row: row["provider"])[:_ROWS_MAX],
        failures=_lines(generations, "error_code", lambda row: row["error_code"])[:_ROWS_MAX],
        failovers=await metrics_store.failovers(page.reads, account, span),
        endpoints=endpoints[:_ROWS_MAX],
        errors=_errors(requests)[:_ROWS_MAX],
        keys=await metrics_store.keys(page.reads, account, span, limit=_ROWS_MAX),
        rows_max=_ROWS_MAX,
    )


# ------------------------------------------------------------------------------- sums


def _total(rows: Iterable[Any], by: str, value: Any) -> int:
    """The sum over time of what is counted by this value."""
    number = "requests" if by == "status_class" else "generations"
    return sum(row[number] for row in rows if row["at"] is not None and row[by] == value)


def _lines(rows: Iterable[Any], by: str, name: Any) -> Sequence[_Line]:
    """Generations by model, provider or error code, most first; those without one are left out."""
    lines: dict[str, _Line] = {}
    for row in rows:
        if row["at"] is None and row[by]:
            line = lines.setdefault(name(row), _Line(name(row)))
            line.counts[row["status"]] += row["generations"]
            line.charged += row["charged"]
            line.total_ms += row["total_ms"]
    return sorted(lines.values(), key=lambda line: (-line.total, line.name))


def _endpoints(requests: Iterable[Any], latencies: Iterable[Any]) -> Sequence[_Line]:
    lines: dict[str, _Line] = {}
    for row in requests:
        if row["endpoint"] is not None and row["status_class"] is not None:
            line = lines.setdefault(row["endpoint"], _Line(row["endpoint"]))
            line.counts[row["status_class"]] += row["requests"]
    for row in latencies:
        if row["endpoint"] in lines:
            lines[row["endpoint"]].latencies.add(row["bucket"], row["requests"], 0, 0)
    return sorted(lines.values(), key=lambda line: (-line.total, line.name))


def _errors(requests: Iterable[Any]) -> Sequence[_Line]:
    """Error codes with the endpoints that gave them, most first."""
    lines: dict[str, _Line] = {}
    for row in requests:
        if row["error_code"]:
            line = lines.setdefault(row["error_code"], _Line(row["error_code"]))
            line.counts[row["endpoint"]] += row["requests"]
    return sorted(lines.values(), key=lambda line: (-line.total, line.name))


# ------------------------------------------------------------------------------- charts


def _charts(
    span: Span, requests: Sequence[Any], latencies: Sequence[Any], generations: Sequence[Any]
) -> Mapping[str, Markup]:
    labels = time_labels(span)
    by_status = _by_time(span, generations, "status", "generations")
    by_class = _by_time(span, requests, "status_class", "requests")
    charged = [0] * span.slots
    slots = [Counts() for _ in range(span.slots)]
    for row in generations:
        if row["at"] is not None:
            charged[span.place(row["at"])] += row["charged"]
    for row in latencies:
        if row["at"] is not None:
            slots[span.place(row["at"])].add(row["bucket"], row["requests"], 0, 0)
    statuses = [Series(name.capitalize(), by_status[name], tone=tone) for name, tone in _STATUSES]
    classes = [Series(name, by_class[number], tone=tone) for number, name, tone in _CLASSES]
    quantiles = [Series(name, [slot.quantile(share) or 0.0 for slot in slots]) for share, name in _SHARES]
    spent = [Series("Charged", charged)]
    return {
        "generations": charts.bars("Generations by status", labels, statuses),
        "requests": charts.bars("API calls by status", labels, classes),
        "latency": charts.lines(
            "Latency of API calls", labels, quantiles, format=lambda value: duration(value) if value else "0"
        ),
        "charged": charts.bars(
            "Credits charged", labels, spent, format=lambda micro: templating.credits(int(micro), 2)
        ),
    }


def _by_time(span: Span, rows: Iterable[Any], by: str, number: str) -> Mapping[Any, Sequence[int]]:
    """Sums by slot, for each value of `by`."""
    counted: dict[Any, list[int]] = defaultdict(lambda: [0] * span.slots)
    for row in rows:
        if row["at"] is not None and 0 <= (place := span.place(row["at"])) < span.slots:
            counted[row[by]][place] += row[number]
    return counted
