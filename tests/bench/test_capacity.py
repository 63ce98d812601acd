"""The capacity model: units, monotonicity, and what bounds what."""

from math import isclose

import msgspec
import pytest
from bench.capacity.__main__ import MEASURED, load_costs, main
from bench.capacity.check import most_per_second
from bench.capacity.model import Load, Place, each, limits, plan, polls_of
from bench.costs import Costs, Line, Part
from bench.report import Machine
from tests.docs.pages import ROOT

_PLACE = Place()


def _part(name: str, *, process: float, main: float, backend: float, wal: float) -> Part:
    return Part(
        name=name,
        count=1000,
        seconds=1.0,
        process_ms=process,
        sampled_ms=process,
        main_ms=main,
        backend_ms=backend,
        server_ms=0.0,
        wal_bytes=wal,
        wal_syncs=0.01,
        commits=0.02,
        lines=[
            Line(process="postgres", step="settle", ms=backend / 2),
            Line(process="worker", step="webhook: claim, sign, send, record", ms=0.2),
        ],
    )


def _costs() -> Costs:
    return Costs(
        machine=Machine(
            measured_at="2026-01-01T00:00:00+00:00",
            commit="none",
            cpu="none",
            cores=2,
            memory_gib=1.0,
            load_average=0.0,
            sync_ms=0.1,
            python="3.11",
            postgres="18",
            postgres_settings={},
            packages={},
            driver="none",
        ),
        parts=[
            _part("admission", process=0.2, main=0.2, backend=0.1, wal=2000),
            _part("read", process=0.1, main=0.1, backend=0.01, wal=100),
            _part("generation", process=0.8, main=0.5, backend=0.2, wal=4000),
            _part("generation with webhook", process=1.1, main=0.8, backend=0.4, wal=6000),
        ],
        row_bytes=3000.0,
    )


def test_a_generation_costs_the_sum_of_its_parts() -> None:
    load = Load(per_minute=60, reads=3, webhooks=1, image_s=1, video_share=0, image_mb=0)
    one = each(_costs(), load, _PLACE)
    assert isclose(one.api_loop, 0.2 + 3 * 0.1)
    assert isclose(one.database, 0.1 + 0.2 + 3 * 0.01 + 0.2)
    assert isclose(one.wal_bytes, 2000 + 4000 + 2000)
    # One poll, the submit, one file; and the webhook.
    assert isclose(one.worker_loop, 0.5 + 0.3 + 3 * 0.2)
    assert isclose(one.serial, 0.1 + 0.1)


def test_jobs_in_flight_follow_littles_law() -> None:
    load = Load(per_minute=6000, video_share=0.5, image_s=10, video_s=90)
    assert isclose(plan(_costs(), load, _PLACE).in_flight, 100 * 50)


@pytest.mark.parametrize(
    ("duration_s", "media", "polls"), [(0.5, "image", 1), (2.4, "image", 2), (100, "image", 35)]
)
def test_polls_of_a_job_are_those_of_growing_pauses(duration_s: float, media: str, polls: int) -> None:
    assert polls_of(duration_s, media) == polls


def test_callbacks_save_polls() -> None:
    assert polls_of(90, "video", callbacks=True) == 3 < polls_of(90, "video")


def test_more_load_never_needs_less() -> None:
    plans = [plan(_costs(), Load(per_minute=rate), _PLACE) for rate in (1, 100, 10_000, 1_000_000)]
    for field in (
        "api_processes",
        "worker_processes",
        "connections",
        "database_cores",
        "wal_mb_s",
        "rows_tb",
    ):
        values = [getattr(found, field) for found in plans]
        assert values == sorted(values), field
    assert plans[0].api_processes == plans[0].worker_processes == 1


def test_regions_share_the_load_equally() -> None:
    three = plan(_costs(), Load(per_minute=90_000, regions=3), _PLACE)
    one = plan(_costs(), Load(per_minute=30_000, regions=1), _PLACE)
    assert three == one


def test_long_jobs_are_bound_by_how_many_a_worker_carries() -> None:
    load = Load(per_minute=6000, video_share=1, video_s=3600, webhooks=0, callbacks=True)
    found = plan(_costs(), load, msgspec.structs.replace(_PLACE, in_flight=1000))
    assert found.worker_bound == "jobs in flight"
    assert found.worker_processes == 360


def test_limits_come_in_the_order_in_which_they_are_met() -> None:
    load = Load(per_minute=1, busiest_share=0.1)
    found = limits(_costs(), load, _PLACE)
    assert [limit.per_minute for limit in found] == sorted(limit.per_minute for limit in found)
    account = next(limit for limit in found if "account" in limit.part)
    # 0.2 ms for which the row is held, 60 % busy, a tenth of the load.
    assert isclose(account.per_minute, 60 * 0.6 / 0.0002 / 0.1)
    assert {limit.part for limit in found} >= {"WAL of the primary", "rows on the primary's disk"}


def test_a_machine_does_what_its_one_thread_or_all_its_cores_allow() -> None:
    admission, generation = _costs().part("admission"), _costs().part("generation")
    assert isclose(most_per_second([admission], cores=8), 1000 / 0.2)
    assert isclose(most_per_second([admission, generation], cores=2), 1000 / (1.3 / 2))


def test_the_command_prints_a_plan_from_the_costs_that_were_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert load_costs(MEASURED).row_bytes > 0
    assert main(["--per-minute", "1000000", "--regions", "3", "--video-share", "0.2"]) == 0
    said = capsys.readouterr().out
    assert "5,555.6" in said
    assert "20% video" in said


@pytest.mark.parametrize(
    "load",
    ["--per-minute 6000", "--per-minute 1000000 --regions 3 --video-share 0.2"],
    ids=["small", "large"],
)
def test_the_page_holds_what_the_command_prints(load: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(load.split())
    assert capsys.readouterr().out in (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
