"""Forwarded headers: believed from trusted proxies, ignored from everybody else, harmless whatever they hold."""

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeDeployment
from tests.contract.asgi import HOST, Header, http_scope
from tests.support import make_customer

from babysea_server.contract.proxies import TrustedProxies
from babysea_server.settings import SettingsError

PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.10", "fd00::/8"])


def seen(*headers: Header, peer: str = "10.0.0.1") -> dict[str, Any]:
    """Client, hosts and scheme after the proxies."""
    scope = {**http_scope(headers=headers), "scheme": "http", "client": (peer, 1)}
    resolved = PROXIES.resolve(scope)
    hosts = [value.decode() for name, value in resolved["headers"] if name == b"host"]
    return {"client": resolved["client"][0], "hosts": hosts, "scheme": resolved["scheme"]}


def client(*forwarded: str, peer: str = "10.0.0.1") -> str:
    found: str = seen(*(("x-forwarded-for", value) for value in forwarded), peer=peer)["client"]
    return found


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),  # what stands further left may be the client's invention
        ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("1.1.1.1,203.0.113.7 ,192.0.2.10,  10.0.0.2", "203.0.113.7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # every hop is a proxy of ours: the first one began it
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, ::ffff:10.0.0.2", "203.0.113.7"),
        ("203.0.113.7, fd00::1", "203.0.113.7"),
    ],
)
def test_the_first_address_from_the_right_that_is_no_proxy_is_the_client(
    forwarded: str, expected: str
) -> None:
    assert client(forwarded) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("", "10.0.0.1"),
        ("unknown", "10.0.0.1"),
        ("203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
        ("203.0.113.7,", "10.0.0.1"),
        ("203.0.113.7:", "10.0.0.1"),
        ("203.0.113.7:port", "10.0.0.1"),
        ("[2001:db8::7", "10.0.0.1"),
        ("[2001:db8::7]4711", "10.0.0.1"),
        ("fe80::1%eth0", "10.0.0.1"),
        ("203.0.113.0/24", "10.0.0.1"),
        ("010.0.0.1", "10.0.0.1"),
        ("203.0.113.7, " + ", ".join(["10.0.0.2"] * 40), "10.0.0.2"),
    ],
)
def test_an_entry_that_is_no_address_ends_the_walk_at_the_hop_before(forwarded: str, expected: str) -> None:
    assert client(forwarded) == expected


def test_repeated_headers_are_one_list() -> None:
    assert client("203.0.113.7", "10.0.0.3, 10.0.0.2") == "203.0.113.7"
    assert client("203.0.113.7, 198.51.100.1", "10.0.0.2") == "198.51.100.1"


@pytest.mark.parametrize("peer", ["203.0.113.9", "192.0.2.11", "::1", "fe80::1", ""])
def test_from_anybody_else_the_headers_are_ignored(peer: str) -> None:
    scope = http_scope(
        headers=[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-host", "evil"), ("x-forwarded-proto", "http")]
    )
    scope["client"] = (peer, 1)
    assert PROXIES.resolve(scope) is scope
    scope["client"] = None
    assert PROXIES.resolve(scope) is scope


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.1", "fd00::5", "192.0.2.10"])
def test_a_proxy_is_known_in_every_notation(peer: str) -> None:
    assert client("203.0.113.7", peer=peer) == "203.0.113.7"


def test_host_and_scheme_are_the_clients() -> None:
    told = seen(("x-forwarded-host", "api.jp.example.com:8443"), ("x-forwarded-proto", "HTTPS"))
    assert (told["hosts"], told["scheme"]) == (["api.jp.example.com:8443"], "https")
    assert seen(("x-forwarded-host", "[::1]:8000"))["hosts"] == ["[::1]:8000"]
    assert seen(("host", "twice"), ("x-forwarded-host", "api.jp.example.com"))["hosts"] == [
        "api.jp.example.com"
    ]


def test_of_several_hosts_or_schemes_the_nearest_proxys_counts() -> None:
    told = seen(
        ("x-forwarded-host", "evil.example, api.us.example.com"),
        ("x-forwarded-host", "api.eu.example.com"),
        ("x-forwarded-proto", "http, https"),
    )
    assert (told["hosts"], told["scheme"]) == (["api.eu.example.com"], "https")


@pytest.mark.parametrize("host", ["", " ", "a b", "api.eu.example.com/v1", "a@b", "ü", "x" * 256, "a,"])
@pytest.mark.parametrize("scheme", ["", "ws", "file", "https:"])
def test_a_host_or_scheme_that_is_none_changes_nothing(host: str, scheme: str) -> None:
    told = seen(("x-forwarded-host", host), ("x-forwarded-proto", scheme))
    assert (told["hosts"], told["scheme"]) == ([HOST], "http")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"]),
            st.binary(max_size=60)
            | st.sampled_from([b"10.0.0.1", b"[::1]", b"::ffff:1.2.3.4", b",,", b"[[]]:1"]),
        ),
        max_size=6,
    )
)
def test_no_header_raises(headers: list[tuple[bytes, bytes]]) -> None:
    scope = {**http_scope(), "client": ("10.0.0.1", 1)}
    scope["headers"] = [*scope["headers"], *headers]
    resolved = PROXIES.resolve(scope)
    assert resolved["scheme"] in ("http", "https")
    assert sum(name == b"host" for name, _ in resolved["headers"]) == 1


async def test_allowlist_region_and_scheme_follow_the_client(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False, trusted_proxies=["10.0.0.0/8"])
    customer = await make_customer(deployment, allowlist=["203.0.113.7"])

    async def status(peer: str, client: str) -> tuple[int, str | None, bool]:
        """HTTP status, error code, and whether the answer was given as over TLS."""
        transport = httpx.ASGITransport(app=deployment.api, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://balancer.internal") as http:
            headers = {
                "Authorization": f"Bearer {customer.key}",
                "X-Forwarded-For": client,
                "X-Forwarded-Host": "api.us.localhost",
                "X-Forwarded-Proto": "https",
            }
            response = await http.get("/v1/status", headers=headers)
            code = response.json().get("error", {}).get("code")
            return response.status_code, code, "strict-transport-security" in response.headers

    assert await status("10.0.0.1", "203.0.113.7") == (200, None, True)
    assert await status("10.0.0.1", "203.0.113.8") == (403, "BSE1007", True)
    assert await status("203.0.113.7", "203.0.113.7") == (403, "BSE1010", False)  # the balancer's is no host


async def test_what_is_no_proxy_stops_the_start(make_deployment: MakeDeployment) -> None:
    with pytest.raises(
        SettingsError, match=r"trusted_proxies: 'proxy\.example\.com' is not an IP address or network"
    ):
        await make_deployment(trusted_proxies=["proxy.example.com"])
