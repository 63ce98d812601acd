"""Which server a client speaks to, and with which key."""

import logging
import traceback

import httpx
import pytest
from tests.sdk.clients import BASE, KEY, KINDS, Network, Side, failure, side, success

from babysea import AsyncBabySea, BabySea, BabySeaError, ConfigurationError, NetworkError
from babysea._config import configure

STATUS = {
    "account_id": "a",
    "apikey_id": "k",
    "apikey_name": "n",
    "apikey_prefix": "bye_kkkkk",
    "apikey_created_at": "2026-04-28T12:00:00.000Z",
}


@pytest.mark.parametrize(
    ("region", "base_url", "expected", "host"),
    [
        (None, None, "http://localhost:8000", None),
        (None, "https://x.example/", "https://x.example", None),
        (None, "https://x.example/proxy/", "https://x.example/proxy", None),
        (None, "https://api.us.example.com", "https://api.us.example.com", None),
        ("eu", "https://api.us.example.com", "https://api.eu.example.com", None),
        ("eu", "https://api.us.example.com:444/p", "https://api.eu.example.com:444/p", None),
        ("jp", "https://api.{region}.example.com", "https://api.jp.example.com", None),
        ("jp", "https://x.example/{region}", "https://x.example/jp", None),
        ("eu", None, "http://localhost:8000", "api.eu.localhost:8000"),
        ("eu", "http://127.0.0.1:81", "http://127.0.0.1:81", "api.eu.localhost:81"),
        ("eu", "http://[::1]", "http://[::1]", "api.eu.localhost"),
        ("eu", "http://api.us.localhost:8000", "http://api.eu.localhost:8000", None),
    ],
)
def test_a_region_finds_its_place(
    region: str | None, base_url: str | None, expected: str, host: str | None
) -> None:
    config = configure(KEY, region, base_url, {})
    assert (config.base_url, config.host) == (expected, host)


@pytest.mark.parametrize(
    ("key", "region", "base_url"),
    [
        (None, None, None),
        ("  ", None, None),
        ("bye_\n1", None, None),
        ("bye_ 1", None, None),
        ("bye_ä", None, None),
        (KEY, "mars", None),
        (KEY, "eu", "https://x.example"),
        (KEY, None, "https://api.{region}.example.com"),
        (KEY, None, "x.example"),
        (KEY, None, "ftp://x.example"),
        (KEY, None, "https://"),
        (KEY, None, "https://x.example:port"),
        (KEY, None, "https://x.example?a=b"),
        (KEY, None, "https://x.example/#a"),
        (KEY, None, "https://me:secret@x.example"),
        (KEY, None, "http://[::1"),
    ],
)
def test_what_makes_no_sense_is_refused(key: str | None, region: str | None, base_url: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(key, region, base_url, {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"max_retries": -1}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    for client in (BabySea, AsyncBabySea):
        with pytest.raises(ConfigurationError):
            client(KEY, **options)  # type: ignore[arg-type]  # one of several names


def test_arguments_precede_the_environment() -> None:
    environment = {"BABYSEA_API_KEY": f" {KEY}\n", "BABYSEA_BASE_URL": "https://e.example"}
    assert configure(None, None, None, environment).api_key == KEY
    assert configure(None, None, None, environment).base_url == "https://e.example"
    assert configure("bye_mine", None, "https://a.example", environment).api_key == "bye_mine"
    assert configure("bye_mine", None, "https://a.example", environment).base_url == "https://a.example"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_region_of_ones_own_machine_is_told_in_the_host_header(kind: str) -> None:
    network = Network(success(STATUS))
    await side(kind, network, base_url="http://127.0.0.1:8000", region="jp").call("status")
    assert network.requests[0].headers["Host"] == "api.jp.localhost:8000"
    assert network.requests[0].url.host == "127.0.0.1"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_address_may_have_a_path(kind: str) -> None:
    network = Network(success(STATUS))
    await side(kind, network, base_url=f"{BASE}/proxy/").call("status")
    assert network.sent == ["GET /proxy/v1/status"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_is_shown_nowhere(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    def quoting(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {request.headers['Authorization']}")

    client = side(kind, Network(failure(401, "BSE1002"), *[quoting] * 3))
    texts = [repr(client.client), repr(vars(client.client))]
    for _ in range(2):
        try:
            await client.call("status")
        except BabySeaError as error:
            # Its cause is httpx's and keeps the request; its own text and repr say nothing.
            texts += [str(error), repr(error), repr(vars(error))]
            texts += ["".join(traceback.format_exception_only(error))]
    assert len(texts) == 10
    assert all(KEY not in text for text in [*texts, caplog.text, *capfd.readouterr()])
    assert "bye_kkkkk..." in texts[0]
    assert BASE in texts[0]


def test_a_short_key_is_not_shown_at_all() -> None:
    assert "bye" not in repr(BabySea("bye_short"))


async def test_an_http_client_of_ones_own_is_left_open() -> None:
    with httpx.Client() as own, BabySea(KEY, http_client=own) as client:
        client.close()
        assert not own.is_closed
    async with httpx.AsyncClient() as own_async, AsyncBabySea(KEY, http_client=own_async) as client_async:
        await client_async.aclose()
        assert not own_async.is_closed


async def test_ours_is_closed() -> None:
    client, another = BabySea(KEY), AsyncBabySea(KEY)
    with client:
        pass
    async with another:
        pass
    with pytest.raises(RuntimeError):
        client.status()
    with pytest.raises(RuntimeError):
        await another.status()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_http_client_of_ones_own_does_otherwise_is_not_used_with_the_key(kind: str) -> None:
    """Redirects and credentials of another kind would lead the key, or the request, elsewhere."""
    network = Network(httpx.Response(307, headers={"Location": "http://elsewhere.example/"}))
    transport = httpx.MockTransport(network)
    options = {"auth": ("me", "secret"), "follow_redirects": True, "transport": transport}
    client: BabySea | AsyncBabySea
    if kind == "sync":
        client = BabySea(KEY, base_url=BASE, http_client=httpx.Client(**options))  # type: ignore[arg-type]  # mixed
    else:
        client = AsyncBabySea(KEY, base_url=BASE, http_client=httpx.AsyncClient(**options))  # type: ignore[arg-type]  # mixed
    with pytest.raises(BabySeaError):
        await Side(client).call("status")
    assert len(network.requests) == 1
    assert network.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_nobody_listening_is_told_with_the_reason() -> None:
    with BabySea(KEY, base_url="http://127.0.0.1:9", max_retries=0) as client:
        with pytest.raises(NetworkError, match="refused") as caught:
            client.status()
        assert not caught.value.sent
