"""`babysea-server routing explain`: the order that would be used, and sentences that say why."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.routing.attempts import AGAINST, resolve
from tests.support import ManualClock

from babysea_server.db.pool import Database
from babysea_server.routing.explain import Evidence, Explanation, explain
from babysea_server.routing.health import Tally, Window
from babysea_server.routing.job import RankingJob
from babysea_server.routing.ranking import DECAYED, STALE_AFTER_S, Ranking

NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)


def ranking(*providers: str, age_s: float = 12.0) -> Ranking:
    return Ranking(
        providers_ranked=providers,
        scores={},
        attempts_total=9,
        window_hours=24,
        computed_at=NOW - timedelta(seconds=age_s),
    )


def explained(
    ranked: Ranking | None = None, missing: str = "", fault: str | None = None, **tallies: Tally
) -> Explanation:
    evidence = Evidence(
        model="lab/one",
        region="us",
        static_order=("a", "b", "c"),
        ranking=ranked,
        figures=(),
        window=Window(NOW, tallies),
        exploration=0.02,
        rule=DECAYED.name,
        fault=fault,
    )
    return explain(evidence, lambda provider: provider not in missing)


def failed(age_s: float, probed_at: datetime | None = None) -> Tally:
    return Tally(failures=9, last_failure=NOW - timedelta(seconds=age_s), probed_at=probed_at)


def test_a_current_ranking_decides() -> None:
    found = explained(ranking("c", "a"))
    assert (found.order, found.chain, found.ranking_age_s) == (["c", "a", "b"], ["c", "a", "b"], 12.0)
    assert found.reasons == [
        "The ranking (decayed) was computed 12 s ago, so it decides.",
        "Too few attempts to be ranked, so behind the others: b.",
        "2.0% of the requests begin with a random other provider, so that its figures stay fresh.",
    ]


@pytest.mark.parametrize(
    ("ranked", "fault", "sentence"),
    [
        (None, None, "There is no ranking of this model"),
        (
            None,
            "The cache cannot be reached.",
            "cannot be read, so the model's own order stands: The cache cannot",
        ),
        (ranking("c", age_s=STALE_AFTER_S + 1), None, "301 s ago, and after 300 s it is not used"),
        (ranking("c", age_s=-STALE_AFTER_S - 1), None, "some clock is wrong"),
    ],
)
def test_without_a_current_ranking_the_models_own_order_stands(
    ranked: Ranking | None, fault: str | None, sentence: str
) -> None:
    found = explained(ranked, fault=fault)
    assert found.order == ["a", "b", "c"]
    assert sentence in found.reasons[0]


def test_what_is_not_configured_is_left_out_and_listed_last() -> None:
    found = explained(ranking("c", "a"), missing="a")
    assert found.order == ["c", "b"]
    assert [(each.provider, each.place) for each in found.providers] == [("c", 1), ("b", 2), ("a", None)]
    assert "Not configured on this server, so left out: a." in found.reasons


def test_without_anybody_to_call_it_says_how_a_request_is_refused() -> None:
    found = explained(missing="abc")
    assert found.order == []
    assert found.reasons[-1] == "No provider can be called: a request would be refused with BSE4011."


def test_a_degraded_provider_stands_behind_and_a_recovering_one_waits_for_its_probe() -> None:
    found = explained(ranking("a", "b", "c"), a=failed(5), b=failed(70))
    assert (found.order, found.chain) == (["b", "c", "a"], ["a", "b", "c"])
    assert any(
        reason.startswith("a is degraded: 9 of 9 attempts failed in the last 300 s")
        for reason in found.reasons
    )
    assert any("the next attempt is its probe" in reason for reason in found.reasons)
    probed = explained(a=failed(5), b=failed(70, probed_at=NOW))
    assert probed.order == ["c", "a", "b"]
    assert any("a probe is under way" in reason for reason in probed.reasons)


def test_when_all_are_degraded_it_says_that_the_first_is_tried_all_the_same() -> None:
    found = explained(a=failed(5), b=failed(5), c=failed(5))
    assert found.order == ["a", "b", "c"]
    assert "All providers are degraded or recovering: a is tried all the same." in found.reasons


# ------------------------------------------------------------------------------- the command

MODEL = "bfl/flux-schnell"


_RUN = """
import typer
from babysea_server.cli.routing import routing_app
app = typer.Typer()
app.add_typer(routing_app, name="routing")
app()
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(dsn: str, tmp_path: Path) -> Command:
    """Runs the command on the test's database, in a process of its own: it sets up logging for all of it."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "DATABASE_URL_US": dsn, "BABYSEA_DATA_DIR": str(tmp_path)}
        words = [sys.executable, "-c", _RUN, "routing", "explain", *arguments]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    return run


def prepare(dsn: str) -> None:
    """`fal` is quick, `replicate` slow and then degraded; everything has been counted."""

    async def write() -> None:
        db = Database(dsn, name="test", size=2)
        await db.open()
        await resolve(db, "fal", "used", 10, took_s=2, times=30, model=MODEL)
        await resolve(db, "replicate", "used", 400, took_s=9, times=30, model=MODEL)
        await resolve(db, "replicate", "failed", 20, times=6, model=MODEL, failure="failed", cost=1)
        await RankingJob(db, "us", ManualClock(), failures=AGAINST, lag_s=0.0).run()
        await db.close()

    asyncio.run(write())


def test_the_command_tells_order_figures_and_reasons(dsn: str, command: Command) -> None:
    prepare(dsn)
    found = json.loads(command(MODEL, "--json").stdout)
    assert (found["region"], found["static_order"]) == ("us", ["replicate", "fal", "cloudflare"])
    assert found["ranking"] == ["fal", "replicate"]
    assert found["order"] == ["fal", "cloudflare", "replicate"]
    replicate = next(each for each in found["providers"] if each["provider"] == "replicate")
    assert (replicate["breaker"], replicate["attempts"], replicate["available"]) == ("degraded", 36, True)
    assert 0 < replicate["success_rate"] < 1
    assert replicate["wasted_rate"] > 0

    shown = command(MODEL)
    assert shown.returncode == 0
    assert f"{MODEL} in us would be tried at: fal, cloudflare, replicate" in shown.stdout
    assert "replicate is degraded: 6 of 6 attempts failed" in shown.stdout
    assert "attempts 24 h" in shown.stdout


def test_the_command_works_where_nothing_has_happened_yet(command: Command) -> None:
    found = json.loads(command(MODEL, "--json").stdout)
    assert found["order"] == found["static_order"]
    assert {each["breaker"] for each in found["providers"]} == {"unknown"}


def test_a_model_that_does_not_exist_is_one_line(command: Command) -> None:
    refused = command("bfl/flux-snell")
    assert refused.returncode == 2
    assert "Did you mean 'bfl/flux-schnell'?" in refused.stderr
