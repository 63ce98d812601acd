"""What a region publishes without a key: chosen by host, revalidated, compressed for who takes it."""

import gzip
from collections.abc import Mapping
from typing import Any

import pytest
from tests.contract.asgi import Answer, ask, http_scope

from babysea_server.contract.publish import Publisher
from babysea_server.contract.reference.page import render_reference
from babysea_server.settings import REGIONS

Documents = Mapping[str, dict[str, Any]]


@pytest.fixture(scope="module")
def publisher(documents: Documents, hosts: Mapping[str, str]) -> Publisher:
    return Publisher(documents, hosts)


@pytest.mark.parametrize("region", REGIONS)
async def test_each_host_publishes_the_document_of_its_region_and_the_page_made_from_it(
    publisher: Publisher, documents: Documents, region: str
) -> None:
    host = f"API.{region}.example.com:8000"
    document = await ask(publisher, http_scope(target="/openapi.json", host=host))
    assert (document.status, document.headers["content-type"]) == (200, "application/json")
    assert document.json == documents[region]
    page = await ask(publisher, http_scope(target="/docs", host=host))
    rendered = render_reference(documents[region])
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body == rendered.html
    assert page.headers["content-security-policy"] == rendered.policy


async def get(publisher: Publisher, path: str, method: str = "GET", **headers: str) -> Answer:
    sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await ask(publisher, http_scope(method, path, sent))


@pytest.mark.parametrize("path", sorted(Publisher.PATHS))
@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_what_has_not_changed_is_not_sent_again(publisher: Publisher, path: str, encoding: str) -> None:
    first = await get(publisher, path, accept_encoding=encoding)
    assert first.headers["content-length"] == str(len(first.body))
    assert first.headers["cache-control"] == "no-cache"
    again = await get(publisher, path, accept_encoding=encoding, if_none_match=f"W/{first.headers['etag']}")
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = await get(publisher, path, accept_encoding=encoding, if_none_match='"other"')
    assert other.status == 200
    head = await get(publisher, path, "HEAD", accept_encoding=encoding)
    assert (head.status, head.body, head.headers) == (200, b"", first.headers)


@pytest.mark.parametrize("path", sorted(Publisher.PATHS))
@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5, *", True),
        ("gzip; q=1.0", True),
        ("", False),
        ("br, deflate", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("x-gzip", False),
    ],
)
async def test_who_takes_gzip_gets_it(
    publisher: Publisher, path: str, accepted: str, compressed: bool
) -> None:
    plain = await get(publisher, path)
    answer = await get(publisher, path, accept_encoding=accepted)
    assert answer.headers["vary"] == "accept-encoding"
    assert ("content-encoding" in answer.headers) == compressed
    assert (answer.headers["etag"] != plain.headers["etag"]) == compressed
    assert (gzip.decompress(answer.body) if compressed else answer.body) == plain.body


@pytest.mark.parametrize("path", sorted(Publisher.PATHS))
@pytest.mark.parametrize(
    ("method", "host", "rule"),
    [("GET", "evil.example", "unknown_host"), ("POST", "api.us.example.com", "method_not_allowed")],
)
async def test_other_hosts_and_methods_are_refused(
    publisher: Publisher, path: str, method: str, host: str, rule: str
) -> None:
    answer = await ask(publisher, http_scope(method, path, host=host))
    assert (answer.status, answer.code) == (403, "BSE1010")
    assert answer.json["error"]["details"]["rule"] == rule
