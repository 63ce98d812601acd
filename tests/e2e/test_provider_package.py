"""A provider in a package of its own: installed beside the server, found by its entry point, and really used.

The package is `examples/provider`. Its API is emulated below, and it is the provider that the documentation walks
through. The server runs as processes of its own, with the package on their path.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.e2e.system import System
from tests.emulators.kit import SECRET, Emulator, Misbehavior, json, running

PACKAGE = Path(__file__).parents[2] / "examples" / "provider"


class AcmeEmulator(Emulator):
    """What the adapter of the package expects."""

    provider = "acme"
    base_path = "/v1"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/jobs", self.create),
            web.get("/v1/jobs/{id}", self.read),
            web.get("/v1/me", self.me),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        received = await self.receive(request)
        if not self.authorized(request):
            return json(401, {"message": "who are you?"})
        assert set(received.body) == {"model", "input"}
        job = self.new_job(f"job-{self.number()}", received.body["input"]["prompt"]["text"], received)
        return json(201, {"id": job.id})

    async def read(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs[request.match_info["id"]]
        if not self.is_done(job):
            return json(200, {"status": "working"})
        if job.behavior is Misbehavior.INTERNAL_ERROR:
            return json(200, {"status": "failed", "reason": "a bad dream"})
        return json(200, {"status": "done", "result": {"url": self.file_url(job)}})

    async def me(self, request: web.Request) -> web.StreamResponse:
        return json(200, {"name": "dreamer"}) if self.authorized(request) else json(401, {})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed into a folder."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += [
        "--no-index",
        "--disable-pip-version-check",
        "--no-compile",
        "--target",
        str(folder),
        str(PACKAGE),
    ]
    subprocess.run(command, check=True, timeout=100)
    return folder


@pytest.fixture
async def acme() -> AsyncIterator[AcmeEmulator]:
    async with running(AcmeEmulator()) as emulator:
        assert isinstance(emulator, AcmeEmulator)
        yield emulator


async def test_a_package_brings_a_provider_that_is_listed_checked_and_used(
    system: System, installed: Path, acme: AcmeEmulator
) -> None:
    system.environment |= {
        "PYTHONPATH": str(installed),
        "BABYSEA_PROVIDER_ACME_API_KEY": SECRET,
        "BABYSEA_PROVIDER_ACME_BASE_URL": acme.base_url,
    }
    listed = {row["provider"]: row for row in await system.cli("providers", "list")}
    assert (listed["acme"]["state"], listed["acme"]["models"]) == ("live", 2)
    assert listed["fal"]["state"] == "needs api_key"
    [checked] = await system.cli("providers", "check")
    assert checked == {"provider": "acme", "result": "works", "message": "account dreamer"}

    up = await system.up()
    assert "Live providers: acme." in up.out
    api = system.newcomer()
    providers = (await api.data("/v1/library/providers"))["providers"]
    [shown] = [provider for provider in providers if provider["provider_id"] == "acme"]
    assert shown["provider_status"] == "available"
    assert shown["babysea_implementation"]["delivery_method"] == "polling"
    models = {model["model_identifier"]: model for model in (await api.data("/v1/library/models"))["models"]}
    assert models["acme/dream"]["model_supported_provider"] == ["acme"]
    assert models["bfl/flux-schnell"]["model_supported_provider"][-1] == "acme"

    made = await api.generate("acme/dream", key="dream", generation_ratio="16:9")
    generation = await api.finished(made.json()["data"]["generation_id"])
    assert (generation["generation_status"], generation["generation_provider_used"]) == ("succeeded", "acme")
    assert acme.jobs["job-1"].request.body == {
        "model": "dream-1",
        "input": {"prompt": {"text": "a test"}, "shape": "wide"},
    }
    failing = await api.generate(
        "acme/dream", key="bad", generation_prompt="[emulate:internal-error] a dream"
    )
    failed = await api.finished(failing.json()["data"]["generation_id"])
    assert (failed["generation_status"], failed["generation_error_code"]) == ("failed", "BSE4001")

    # Others are not called: their models say so before anything is reserved, and the sandbox's own always run.
    refused = await api.generate("gpt/image-2", key="nobody")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "BSE4011")
    drawn = await api.generate("sandbox/image", key="sandbox")
    assert (await api.finished(drawn.json()["data"]["generation_id"]))["generation_status"] == "succeeded"
    assert SECRET not in up.out + up.err
    await system.books_are_clean()
