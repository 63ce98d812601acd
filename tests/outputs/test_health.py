"""The health of storage: a real round trip, and an answer that tells no secrets when it fails."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeDeployment
from tests.support import Customer, Deployment, ManualClock, make_customer

from babysea_server.outputs.health import REMEMBERED_S, StorageHealth
from babysea_server.outputs.store import ObjectStore, open_store


async def read(customer: Customer) -> dict[str, Any]:
    response = await customer.request("GET", "/v1/health/storage")
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def asked(health: StorageHealth) -> Any:
    call: Any = None  # the handler does not look at who asks
    return (await health.storage(call)).data


async def test_storage_that_works_is_healthy_and_keeps_nothing_of_the_probe(
    deployment: Deployment, customer: Customer
) -> None:
    data = await read(customer)
    assert set(data) == {"service", "healthy", "latency_ms", "bucket"}
    assert (data["service"], data["healthy"], data["bucket"]) == ("storage", True, "local")
    assert data["latency_ms"] > 0
    files = deployment.settings.data_path / "files"
    assert [path for path in files.rglob("*") if path.is_file()] == []


async def test_a_directory_that_became_something_else_is_told_without_its_path(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(worker=False)
    customer = await make_customer(deployment)
    folder = deployment.settings.data_path / "files" / "us"
    folder.rmdir()
    folder.write_bytes(b"not a directory")
    data = await read(customer)
    assert data.pop("latency_ms") >= 0
    assert data == {
        "service": "storage",
        "healthy": False,
        "bucket": "local",
        "error": "The storage cannot be reached, or fails.",
    }


async def test_a_bucket_that_nobody_answers_for_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    data = await asked(StorageHealth(open_store("s3://outputs/base", tmp_path), ManualClock()))
    assert (data.healthy, data.bucket) == (False, "outputs")
    assert data.error == "The storage cannot be reached, or fails."


class Backend:
    """Fails in every call, or hangs; counts the writes it was asked for."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error
        self.writes = 0

    async def put_async(self, *_: object, **__: object) -> None:
        self.writes += 1
        await self._end()

    async def _end(self, *_: object, **__: object) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()

    get_async = head_async = delete_async = _end


def failing(error: Exception | None) -> tuple[Backend, ManualClock, StorageHealth]:
    backend: Any = Backend(error)
    clock = ManualClock()
    store = ObjectStore(backend, name="x", probe_deadline_s=0.001)
    return backend, clock, StorageHealth(store, clock)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, "The storage did not answer in time."),
        (PermissionError("/srv/files"), "The storage refused access."),
        (
            FileNotFoundError("/srv/files"),
            "The storage does not hold what was just written, or its bucket is gone.",
        ),
        (OSError("key AKIA123 at /srv/files"), "The storage cannot be reached, or fails."),
    ],
)
async def test_each_way_to_fail_has_its_sentence(error: Exception | None, sentence: str) -> None:
    _, _, health = failing(error)
    data = await asked(health)
    assert (data.healthy, data.error) == (False, sentence)


async def test_however_many_ask_the_storage_is_probed_once_a_second() -> None:
    backend, clock, health = failing(OSError("away"))
    await asyncio.gather(*(asked(health) for _ in range(20)))
    clock.advance(REMEMBERED_S - 0.1)
    await asked(health)
    assert backend.writes == 1
    clock.advance(0.1)
    await asked(health)
    assert backend.writes == 2
