"""On the way to the collector: nothing is waited for, what is queued is flushed, and no collector is no misfortune."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.conftest import MakeDeployment, deployment_settings
from tests.e2e.system import QUICK, running_system
from tests.support import make_customer
from tests.telemetry.collector import collecting

from babysea_server.app.shared import build_shared
from babysea_server.app.telemetry import Telemetry
from babysea_server.app.workers import Workers
from babysea_server.kit.clock import SystemClock
from babysea_server.settings import SettingsError, load_settings
from babysea_server.telemetry.tracing import Span, new_ref
from babysea_server.telemetry.tracing_otlp import OtlpTracer

NOBODY = "http://127.0.0.1:9/v1/traces"


def _span() -> Span:
    return Span(name="one", ref=new_ref(), parent_id=None, start_ns=1, end_ns=2, attributes={})


async def test_what_is_queued_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    async with collecting() as collector:
        tracer = OtlpTracer(f"{collector.endpoint}/v1/traces", "api", "1.2.3")
        for _ in range(100):
            tracer.record(_span())
        assert collector.spans == []
        await tracer.close(within_s=30)
        assert len(collector.spans) == 100
        tracer.record(_span())
    [headers] = collector.headers
    assert (headers["x-tenant"], headers["Content-Encoding"]) == ("acme", "gzip")
    [resource] = {tuple(sorted(span.resource.items())) for span in collector.spans}
    assert {"service.name": "pictures", "service.version": "1.2.3"}.items() <= dict(resource).items()


async def test_a_process_sends_what_is_queued_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with collecting() as collector:
        settings = deployment_settings(tmp_path, tracing_endpoint=f"{collector.endpoint}/v1/traces")
        telemetry = Telemetry("worker", settings, {}, SystemClock(), lambda: False)
        await telemetry.open()
        assert telemetry.tracing is not None
        telemetry.tracing.record(_span())
        await telemetry.close()
        assert [span.resource["service.name"] for span in collector.spans] == ["babysea-worker"]


async def test_a_collector_that_is_away_costs_a_line_and_no_more_than_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with capture_logs() as lines:
        tracer = OtlpTracer(NOBODY, "api", "1.2.3")
        for _ in range(1000):
            tracer.record(_span())
        await tracer.close(within_s=30)
    dropped = [line for line in lines if line["event"] == "traces_dropped"]
    assert [line["reason"] for line in dropped] == ["the collector does not take them"], (
        "once a minute, not for every batch"
    )
    assert dropped[0]["spans"] >= 8


async def test_work_goes_on_without_a_collector(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(tracing_endpoint=NOBODY)
    customer = await make_customer(deployment)
    assert (await customer.made())["generation_status"] == "succeeded"


async def test_a_worker_that_was_killed_and_its_successor_write_one_trace() -> None:
    async with collecting() as collector:
        environment = {
            **QUICK,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "BABYSEA_LOG_LEVEL": "debug",
            "BABYSEA_LOG_FORMAT": "json",
        }
        async with running_system(environment) as system:
            up = await system.up()
            api = system.newcomer()
            made = await api.generate(key="one", generation_prompt="[sandbox:slow:6]")
            generation_id = made.json()["data"]["generation_id"]
            await collector.has(generation_id, "submit", within_s=90)
            # Else the successor had to ask the provider whether it has the job.
            kept = "SELECT count(*) FROM attempts WHERE outcome = 'pending' AND upstream_id IS NOT NULL"
            await system.reaches(kept, 1)
            await system.kill_child("worker")
            assert (await api.finished(generation_id))["generation_status"] == "succeeded"
            assert await up.stop() == 0
            lines = [json.loads(line) for line in up.err.splitlines()]
        trace = await collector.has(
            generation_id,
            "admission",
            "queue",
            "attempt sandbox",
            "store",
            "settle",
            "generation sandbox/image",
        )
    names = sorted(span.name for span in trace)
    once = ("admission", "queue", "attempt sandbox", "submit", "wait", "fetch", "store", "settle")
    assert names == sorted([*once, "generation sandbox/image"])
    by_name = {span.name: span for span in trace}
    attempt = by_name["attempt sandbox"]
    for step in ("submit", "wait", "fetch", "store"):
        assert by_name[step].parent_id == attempt.span_id
    assert attempt.start_ns <= by_name["submit"].start_ns + 1_000_000_000, "it began with the one that died"
    assert attempt.attributes["babysea.fence"] == 2
    first, second = by_name["submit"].resource, by_name["wait"].resource
    assert first["service.name"] == second["service.name"] == "babysea-worker"
    assert first["service.instance.id"] != second["service.instance.id"]
    assert by_name["admission"].resource["service.name"] == "babysea-api"

    of_it = [line for line in lines if line.get("generation_id") == generation_id]
    told = {line["event"]: line for line in of_it}
    assert (told["request_served"]["process"], told["request_served"]["region"]) == ("api", "us")
    for event in ("attempt_resumed", "attempt_ended", "generation_settled"):
        line = told[event]
        assert (line["process"], line["region"], line["provider"]) == ("worker", "us", "sandbox")
        assert line["attempt_id"] == attempt.attributes["babysea.attempt.id"]
        assert line["trace_id"] == attempt.trace_id
    assert all("attempt_id" not in line or "generation_id" in line for line in lines)


WITHOUT = """\
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from babysea_server.app.api import Api
from babysea_server.app.shared import build_shared
from babysea_server.app.workers import Workers
from babysea_server.settings import SettingsError, load_settings

def build(**settings):
    shared = build_shared(load_settings({}, overrides={"data_dir": sys.argv[1], **settings}))
    for part in (Api, Workers):
        part(shared, {"us": "postgresql://127.0.0.1:9/none"})

build()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
try:
    build(tracing_endpoint="http://127.0.0.1:9/v1/traces")
except SettingsError as error:
    print(error)
"""


def test_without_the_extra_all_is_there_but_traces_and_asking_for_them_says_what_to_install(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'babysea-server[tracing]'" in done.stdout


def test_nothing_of_it_is_loaded_where_nobody_asked_for_traces(tmp_path: Path) -> None:
    script = (
        "import sys; from babysea_server.app.api import Api; from babysea_server.app.workers import Workers\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/otlp"}, "https://c/otlp/v1/traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4318/in",
            },
            "http://t:4318/in",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
                "BABYSEA_TRACING_ENDPOINT": "http://ours:4318/v1/traces",
            },
            "http://ours:4318/v1/traces",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_opentelemetrys_own_variables_turn_traces_on(
    environment: dict[str, str], endpoint: str | None
) -> None:
    assert load_settings(environment).tracing_endpoint == endpoint


def test_what_cannot_be_sent_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="tracing_endpoint"):
        load_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"})
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    shared = build_shared(deployment_settings(tmp_path, tracing_endpoint=NOBODY))
    with pytest.raises(
        SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL: traces are sent over http/protobuf"
    ):
        Workers(shared, {"us": "postgresql://127.0.0.1:9/none"})
