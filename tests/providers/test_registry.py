"""Requests with credentials go to the provider's own addresses; what the operator configured is what is called."""

from pathlib import Path

import pytest

from babysea_server.app.registries import live_providers, provider_registry, provider_traits
from babysea_server.catalog.catalog import load_catalog
from babysea_server.db.pool import Database
from babysea_server.providers.adapters import adapters
from babysea_server.providers.base import Answer, NeverSentError, Request
from babysea_server.providers.registry import GuardedTransport
from babysea_server.settings import ProviderSettings, Settings, SettingsError, load_settings


class Line:
    """Notes what it is asked to send."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        self.sent.append(request.url)
        return Answer(200, {}, b"")

    async def close(self) -> None:
        pass


OWN = (
    "https://queue.example.com/v1/jobs/1",
    "https://queue.example.com:443/v1/jobs/1",
    "https://QUEUE.example.com/",
    "https://eu.example.net/poll",
    "https://example.net/poll",
)
ELSEWHERE = (
    "http://queue.example.com/v1/jobs/1",
    "https://queue.example.com:8443/v1/jobs/1",
    "https://queue.example.com.evil.test/",
    "https://evil-example.net/",
    "http://eu.example.net/poll",
    "https://eu.example.net:444/poll",
    "https://eu.example.net@evil.test/",
    "https://key@queue.example.com/",
    "https://169.254.169.254/latest",
    "https://[::1]/",
    "https://[broken",
    "https://queue.example.com:port/",
    "file:///etc/passwd",
    "",
)


@pytest.mark.parametrize("url", OWN)
async def test_addresses_of_the_provider_are_followed(url: str) -> None:
    line = Line()
    guarded = GuardedTransport(line, "https://queue.example.com/v1", ("example.net",))
    await guarded.send(Request("GET", url), timeout_s=1, body_max=1)
    assert line.sent == [url]


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_addresses_of_anybody_else_are_not(url: str) -> None:
    line = Line()
    guarded = GuardedTransport(line, "https://queue.example.com/v1", ("example.net",))
    with pytest.raises(NeverSentError, match="not its own"):
        await guarded.send(Request("GET", url), timeout_s=1, body_max=1)
    assert line.sent == []


def settings(tmp_path: Path, **providers: ProviderSettings) -> Settings:
    return load_settings({}, overrides={"data_dir": str(tmp_path), "providers": providers})


KEY = ProviderSettings(api_key="a key")


def test_only_what_has_all_it_needs_is_live(tmp_path: Path) -> None:
    given = settings(
        tmp_path,
        fal=KEY,
        cloudflare=KEY,
        replicate=ProviderSettings(api_key="a key", enabled=False),
        comfyui=ProviderSettings(base_url="http://10.0.0.7:8188"),
    )
    assert sorted(live_providers(given)) == ["comfyui", "fal"]


async def test_the_sandbox_stands_in_only_while_nobody_is_live(tmp_path: Path) -> None:
    catalog, db = load_catalog(None), Database("postgresql://nobody@127.0.0.1:1/none", name="none", size=1)
    alone = provider_registry(settings(tmp_path), catalog, db)
    routes = [alone.route(id) for id in catalog.providers]
    assert {route and route.provider.name for route in routes} == {"sandbox"}
    live = provider_registry(settings(tmp_path, fal=KEY), catalog, db)
    assert {id for id in catalog.providers if live.available(id)} == {"fal", "sandbox"}
    await alone.close()
    await live.close()


def test_an_address_that_is_none_is_told_with_the_provider(tmp_path: Path) -> None:
    wrong = settings(tmp_path, fal=ProviderSettings(api_key="a key", base_url="queue.fal.run"))
    with pytest.raises(SettingsError, match=r"providers\.fal\.base_url"):
        provider_registry(wrong, load_catalog(None), Database("postgresql://x", name="none", size=1))


def test_optional_providers_stand_behind_the_others_and_only_where_they_are_configured() -> None:
    without, joined = load_catalog(None), load_catalog(None, joined=["google"])
    assert "google" not in without.providers
    assert "google" in joined.providers
    served = [model for model in joined.models.values() if "google" in model.providers]
    assert served
    for model in served:
        before = without.models[model.identifier].provider_ids
        assert model.provider_ids == (*before, "google")


def test_the_library_tells_how_each_adapter_works() -> None:
    traits = provider_traits()
    assert set(traits) == {*adapters(), "sandbox"}
    assert (traits["replicate"].cancel, traits["replicate"].verification) == (
        "prediction_cancel_api",
        "hmac_sha256",
    )
    assert (traits["fal"].cancel, traits["fal"].verification) == ("queue_cancel_api", "ed25519")
    assert traits["cloudflare"].delivery == traits["openai"].delivery == "synchronous"
