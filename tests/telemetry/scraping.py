"""A process's own listener, scraped over HTTP as Prometheus does it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from babysea_server.app.telemetry import Telemetry
from babysea_server.processes.serve import told


def free_ports() -> int:
    """A port of the loopback address that nobody uses now, and neither the next one."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Scrape:
    """One answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels; 0 without any."""
        wanted = labels.items()
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and wanted <= sample.labels.items()
        )

    def all_labels(self, family: str) -> set[str]:
        """All values of all labels of a family."""
        return {
            value
            for sample in self.families[family].samples
            for key, value in sample.labels.items()
            if key != "le"
        }


class Listener:
    """The listener of one process."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def scrape(self) -> Scrape:
        """GET `/metrics`."""
        response = await self.client.get("/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain; version=")
        return Scrape(response.text)

    async def ready(self) -> tuple[int, dict[str, object]]:
        """GET `/readyz`: the status and the body."""
        response = await self.client.get("/readyz")
        return response.status_code, response.json()


@asynccontextmanager
async def listener(telemetry: Telemetry) -> AsyncIterator[Listener]:
    """The listener of a process, on loopback, where the process's settings say."""
    async with (
        told(telemetry),
        httpx.AsyncClient(base_url=f"http://{telemetry.host}:{telemetry.port}") as client,
    ):
        yield Listener(client)
